-- Queues of a lane (an app): items wait in per-key sorted sets; two indexes by virtual time give turns to functions, then to keys.
-- Invariant: a key with items is in rk:<fn>, and its function in rf:<lane>; or it is parked at a gate it can't pass (limits/gates.lua).
--- include turns, limits/gates
local READY = {}

-- A key that is parked comes back when its gate opens; its resumes may pass where only starts can't.
local function stays_parked(fn, key, resume)
  if key == '' or not any_parked(fn) then return false end
  local state = redis.call('HGET', k_parks(fn), key)
  return state and not (resume and string.sub(state, 1, 1) == 's')
end

-- Keys have items now.
local function show_all(fn, keys, lane, resume)
  local ready = {}
  for _, key in ipairs(keys) do
    if not stays_parked(fn, key, resume) then ready[#ready + 1] = key end
  end
  if #ready == 0 then return end
  join(k_ready_keys(fn), ready, (#ready > 1 or ready[1] ~= '') and flow_of(fn).time)
  join(k_ready_fns(lane), { fn })
  ring(lane)
end

local function enqueue(item, fn, key, lane, resume, score)
  redis.call('ZADD', resume and k_resumes(fn, key) or k_starts(fn, key), score, item)
  local id = fn .. ':' .. key
  if READY[id] and key == '' then return ring(lane) end
  READY[id] = true
  show_all(fn, { key }, lane, resume)
end

-- Out of wherever the item waits; indexes left empty go too. lease.lua would find them so, but only if somebody leases again.
local function dequeue(item, fn, key, lane)
  if redis.call('ZREM', k_suspects(lane), item) == 1 and key ~= '' then vacate(item, fn, key) end
  local resumes, starts = k_resumes(fn, key), k_starts(fn, key)
  if redis.call('ZREM', resumes, item) + redis.call('ZREM', starts, item) == 0 then return end
  if redis.call('EXISTS', resumes, starts) == 0 then
    READY[fn .. ':' .. key] = nil
    redis.call('ZREM', k_ready_keys(fn), key)
    if key ~= '' then
      local gates = gates_of(fn, key)
      unpark(fn, key)
      keep_none(fn, key, gates)
      pass_on(gates, fn)
    end
    if redis.call('EXISTS', k_ready_keys(fn)) == 0 then redis.call('ZREM', k_ready_fns(lane), fn) end
  elseif key ~= '' and redis.call('EXISTS', starts) == 0 then
    local gates, waited = gates_of(fn, key), string.sub(redis.call('HGET', k_parks(fn), key) or '', 1, 1) == 's'
    if waited then unpark(fn, key) end
    if keep_none(fn, key, gates, true) or waited then pass_on(gates, fn) end
  end
end
