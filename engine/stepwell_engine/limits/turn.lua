-- A turn of a key that has gates, as lease.lua visits it. SERVED: the functions that had one, whose virtual time is written at the end.
--- include limits/gates
local SERVED = {}

-- The key goes no further before that gate opens.
local function stop(fn, key, gate, mode)
  park(fn, key, gate, mode)
  redis.call('ZREM', k_ready_keys(fn), key)
end

local function take_starts(fn, key, gates, n, take)
  local items = redis.call('ZPOPMIN', k_starts(fn, key), n)
  for i = 1, #items, 2 do
    if take(items[i], false) then pass(gates, items[i], items[i], true) end
  end
  return #items / 2
end

local function starts_parked(fn, key, gates)
  return gates.starts and any_parked(fn) and redis.call('HEXISTS', k_parks(fn), key) == 1
end

-- After its turn a key stays, parks at once where the next turn would, or leaves. resumes, starts: whether any may be left.
local function settle_turn(fn, key, gates, got, resumes, starts)
  resumes = resumes and redis.call('EXISTS', k_resumes(fn, key)) == 1
  starts = starts and not resumes and redis.call('EXISTS', k_starts(fn, key)) == 1
  if not resumes and not starts then return redis.call('ZREM', k_ready_keys(fn), key) end
  redis.call('ZINCRBY', k_ready_keys(fn), got / gates.weight, key)
  local _, shut = capacity(gates, 1, false)
  if shut then return stop(fn, key, shut, 'w') end
  if resumes then return keep_on(fn, key, gates) end
  if starts_parked(fn, key, gates) then
    keep_on(fn, key, gates)
    return redis.call('ZREM', k_ready_keys(fn), key)
  end
  _, shut = capacity(gates, 1, true)
  if shut then stop(fn, key, shut, 's') end
end

-- At most `turn` items, as many as the gates let through; `time` is the key's, `take` leases one (lease.lua). Returns how many left the queue.
local function visit(fn, key, time, turn, take)
  local gates = gates_of(fn, key)
  keep_none(fn, key, gates)
  local room, shut = capacity(gates, turn, false)
  if shut then
    stop(fn, key, shut, 'w')
    pass_on(gates, fn)
    return 0
  end
  local items = redis.call('ZPOPMIN', k_resumes(fn, key), room)
  local got = #items / 2
  local resumes, starts = got == room, true
  for i = 1, #items, 2 do
    if take(items[i], false) then pass(gates, items[i], string.sub(items[i], 1, 26), false) end
  end
  if got < room and not starts_parked(fn, key, gates) then
    local more, closed = capacity(gates, room - got, true)
    if not closed then
      local taken = take_starts(fn, key, gates, more, take)
      got, starts = got + taken, taken == more
    elseif redis.call('EXISTS', k_starts(fn, key)) == 1 then
      -- Only if there are any do starts park.
      park(fn, key, closed, 's')
    else
      starts = false
    end
  end
  local flow = flow_of(fn)
  flow.time = math.max(flow.time, time)
  SERVED[fn] = flow
  settle_turn(fn, key, gates, got, resumes, starts)
  pass_on(gates, fn)
  return got
end
