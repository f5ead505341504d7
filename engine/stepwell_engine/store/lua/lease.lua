-- lease.lua  Lease up to `want` items of some lanes to a worker, with the state of their runs.
-- KEYS root
-- ARGV offset worker prefix lease_ms want bytes suspects lane...
-- Functions, then keys of a function, are served in turn by virtual time; within a key resumes go before starts. A key whose gates are
-- shut is parked on the way (limits/gates.lua). Each lease has
-- its own token `<prefix>.<n>` (Lua's random repeats on 6.2). Returns {[item, token, suspect, fields]...}; fields = HGETALL, or {} when the run is
-- too large for one reply and must be read apart.
--- include run, limits/turn, limits/timeouts
local worker, prefix, lease_ms = ARGV[2], ARGV[3], tonumber(ARGV[4])
local want, budget, suspects = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local out, count = {}, 0
-- Keys that are parked on the way bring nothing: a call looks at so many, and rings for the rest.
local visits = 300
local expiries, expiry = {}, string.format('%d', NOW + lease_ms)

-- Whether the item was leased: what ended meanwhile, or may not begin any more, is nobody's.
local function take(item, suspect)
  local run, suffix = item, ''
  if #item > 26 then run, suffix = string.sub(item, 1, 26), string.sub(item, 27) end
  local key = k_run(run)
  local v = redis.call('HMGET', key, 'st', 'rs', 'qa', 'h', 'f', 't', 'e', 'eb', 'el', 'tf', 'tl')
  local st = v[1]
  if not st or ended(st) then return end
  -- A run that never began has nothing else to tell; what did is read whole.
  local fields
  if st == 'q' then
    fields = { 'qa', v[3], 'f', v[5], 't', v[6], 'e', v[7] }
    if v[8] then fields = { 'qa', v[3], 'f', v[5], 't', v[6], 'e', v[7], 'eb', v[8], 'el', v[9] or '' } end
  else
    fields = redis.call('HGETALL', key)
  end
  local size = 0
  for i = 2, #fields, 2 do size = size + #fields[i] end
  count = count + 1
  local token = prefix .. '.' .. count
  local su = suspect and '1' or ''
  if suspect then redis.call('HDEL', key, 'ss' .. suffix) end
  if suffix == '' then
    if v[2] ~= 'q' then return end
    if st == 'q' then
      if v[10] and not begin_in_time(run, v[10], v[11]) then return end
      redis.call('HSET', key, 'st', move(st, 'r'), 'rs', 'l', 'l', token, 'w', worker, 'sa', NOW_S)
    else
      local history = log(key, v[4], 'L' .. NOW_S .. ' ' .. worker .. ' ' .. (v[3] or NOW_S))
      redis.call('HSET', key, 'rs', 'l', 'l', token, 'w', worker, 'h', history)
    end
  else
    if redis.call('HEXISTS', key, 'p' .. suffix) == 0 then return end
    local history = log(key, v[4], 'L' .. NOW_S .. ' ' .. worker .. ' ' .. (v[3] or NOW_S) .. suffix)
    redis.call('HSET', key, 'l' .. suffix, token, 'w' .. suffix, worker, 'h', history)
  end
  if suspect then redis.call('HSET', key, 'su' .. suffix, '1') end
  expiries[#expiries + 1] = expiry
  expiries[#expiries + 1] = item
  if size > budget then fields = {} else budget = budget - size end
  out[#out + 1] = { item, token, su, fields }
  return true
end

local function take_suspect(lane)
  local item = redis.call('ZPOPMIN', k_suspects(lane))[1]
  if not item then return end
  suspects, want = suspects - 1, want - 1
  -- It kept its slots: it goes on before others do.
  if not take(item, true) then
    local f = redis.call('HMGET', k_run(string.sub(item, 1, 26)), 'f', 'k')
    if f[2] then vacate(item, f[1], f[2]) end
  end
end

-- A turn of a key without gates. Returns how many left the queue, and whether any may be left there.
local function plain_visit(fn, key, turn)
  local resumes, starts = k_resumes(fn, key), k_starts(fn, key)
  local items = redis.call('ZPOPMIN', resumes, turn)
  local got = #items / 2
  for i = 1, #items, 2 do take(items[i], false) end
  if got < turn then
    items = redis.call('ZPOPMIN', starts, turn - got)
    got = got + #items / 2
    for i = 1, #items, 2 do take(items[i], false) end
  end
  if got < turn or redis.call('EXISTS', resumes, starts) == 0 then
    redis.call('ZREM', k_ready_keys(fn), key)
    return got, false
  end
  redis.call('ZINCRBY', k_ready_keys(fn), got, key)
  return got, true
end

-- The first of an index, how many there are (asked only where there is a second), and the virtual time of the first.
local function front(index)
  local two = redis.call('ZRANGE', index, 0, 1, 'WITHSCORES')
  return two[1], two[3] and redis.call('ZCARD', index) or #two / 2, tonumber(two[2])
end

-- True when nothing of the lane is left for sure. (A key that passes a chance on may bring in others, of any function: then it is not `alone`.)
local alone = true
local function serve(lane)
  local functions = k_ready_fns(lane)
  while want > 0 and budget > 0 and visits > 0 do
    local fn, rivals = front(functions)
    if not fn then return true end
    local keys, total, none = k_ready_keys(fn), 0, false
    -- A function without rivals goes on; its turns are counted together.
    repeat
      visits = visits - 1
      local key, others, time = front(keys)
      if not key then break end
      -- One turn is a share of what is wanted, so that a lone hot key costs one visit and many keys get one item each.
      local turn = math.ceil(want / (rivals * others))
      local got, left = 0, true
      if others > 1 and time < flow_of(fn).time then
        -- Who joined an empty index knew no time: behind those who are parked, it must not have all the turns that were before.
        redis.call('ZADD', keys, flow_of(fn).time, key)
      elseif key == '' then
        got, left = plain_visit(fn, key, turn)
      else
        got, left, alone = visit(fn, key, time, turn, take), true, false
      end
      want, total = want - got, total + got
      none = not left and others == 1
    until none or rivals > 1 or want <= 0 or budget <= 0 or visits <= 0
    if none or redis.call('EXISTS', keys) == 0 then
      redis.call('ZREM', functions, fn)
      if none and alone and rivals == 1 then return true end
    elseif total > 0 then
      redis.call('ZINCRBY', functions, total, fn)
    end
  end
end

for i = 8, #ARGV do
  local lane = ARGV[i]
  if suspects > 0 and want > 0 then take_suspect(lane) end
  if not serve(lane) and redis.call('EXISTS', k_ready_fns(lane)) == 1 then ring(lane) end
end
for fn, flow in pairs(SERVED) do redis.call('HSET', k_flow(fn), 'vt', string.format('%.17g', flow.time)) end
if next(TAKEN) then write_arrivals() end
write_gathered()
for from = 1, #expiries, 1000 do
  redis.call('ZADD', k_leases(), unpack(expiries, from, math.min(from + 999, #expiries)))
end
return out
