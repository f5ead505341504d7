-- lease.lua  Lease up to `want` items of some lanes to a worker, with the state of their runs.
-- KEYS root
-- ARGV offset worker prefix lease_ms want bytes suspects lane...
-- Functions, then keys of a function, are served in turn by virtual time; within a key resumes go before starts. Each lease has
-- its own token `<prefix>.<n>` (Lua's random repeats on 6.2). Returns {[item, token, suspect, fields]...}; fields = HGETALL, or {} when the run is
-- too large for one reply and must be read apart.
--- include run
local worker, prefix, lease_ms = ARGV[2], ARGV[3], tonumber(ARGV[4])
local want, budget, suspects = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local out, count = {}, 0
local expiries, expiry = {}, string.format('%.0f', NOW + lease_ms)

local function take(item, suspect)
  local run, suffix = item, ''
  if #item > 26 then run, suffix = string.sub(item, 1, 26), string.sub(item, 27) end
  local key = k_run(run)
  local v = redis.call('HMGET', key, 'st', 'rs', 'qa', 'h', 'f', 't', 'e')
  local st = v[1]
  if not st or ended(st) then return end
  -- A run that never began has nothing else to tell; what did is read whole.
  local fields
  if st == 'q' then
    fields = { 'qa', v[3], 'f', v[5], 't', v[6], 'e', v[7] }
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
end

local function serve(lane)
  local functions = k_ready_fns(lane)
  while want > 0 and budget > 0 do
    local head = redis.call('ZRANGE', functions, 0, 0)
    local fn = head[1]
    if not fn then return end
    local keys = k_ready_keys(fn)
    local key = redis.call('ZRANGE', keys, 0, 0)[1]
    if not key then
      redis.call('ZREM', functions, fn)
    else
      -- One turn is a share of what is wanted, so that a lone hot key costs one visit and many keys get one item each.
      local rivals = redis.call('ZCARD', functions) * redis.call('ZCARD', keys)
      local turn = math.max(1, math.floor(want / rivals))
      local resumes, starts = k_resumes(fn, key), k_starts(fn, key)
      local items = redis.call('ZPOPMIN', resumes, turn)
      local got = #items / 2
      for i = 1, #items, 2 do take(items[i], false) end
      if got < turn then
        items = redis.call('ZPOPMIN', starts, turn - got)
        got = got + #items / 2
        for i = 1, #items, 2 do take(items[i], false) end
      end
      want = want - got
      if redis.call('EXISTS', resumes, starts) == 0 then
        redis.call('ZREM', keys, key)
        if redis.call('EXISTS', keys) == 0 then redis.call('ZREM', functions, fn) end
      else
        redis.call('ZINCRBY', keys, got, key)
      end
      if redis.call('ZSCORE', functions, fn) then redis.call('ZINCRBY', functions, got, fn) end
    end
  end
end

for i = 8, #ARGV do
  local lane = ARGV[i]
  if suspects > 0 and want > 0 then
    local item = redis.call('ZPOPMIN', k_suspects(lane))[1]
    if item then
      suspects, want = suspects - 1, want - 1
      take(item, true)
    end
  end
  serve(lane)
  if redis.call('EXISTS', k_ready_fns(lane)) == 1 then ring(lane) end
end
for from = 1, #expiries, 1000 do
  redis.call('ZADD', k_leases(), unpack(expiries, from, math.min(from + 999, #expiries)))
end
return out
