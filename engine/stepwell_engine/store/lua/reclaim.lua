-- reclaim.lua  Take an expired lease away and give its item another chance, or none.
-- KEYS root
-- ARGV offset [item token max_crashes error]...
-- A suspect whose process died again has one crash more; at max_crashes its run fails with `error`. An item that is no suspect
-- becomes one when its process is dead, and is simply queued when the process lives (its lease lapsed: fenced, no crash).
-- Returns {[item, outcome]...}: queued · suspect · failed · cancelled · kept (renewed meanwhile).
--- include finish
local out = {}

local function requeue(item, run, suffix, f, suspect)
  local key = k_run(run)
  local history = log(key, f[8], 'X' .. NOW .. ' ' .. (f[9] or '') .. suffix)
  redis.call('HSET', key, 'qa', NOW, 'h', history)
  redis.call('HDEL', key, 'l' .. suffix, 'su' .. suffix)
  if suffix == '' then redis.call('HSET', key, 'rs', 'q') end
  if suspect then
    redis.call('ZADD', k_suspects(f[5]), f[6], item)
    ring(f[5])
  else
    if f[4] then vacate(item, f[3], f[4]) end
    enqueue(item, f[3], f[4] or '', f[5], true, f[6])
  end
end

-- The item will not run again: its slots are free. (A suspect keeps them: it goes on before others of its key do.)
local function leave(item, f)
  if f[4] then vacate(item, f[3], f[4]) end
end

for i = 2, #ARGV, 4 do
  local item, token, most, err = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local run, suffix = string.sub(item, 1, 26), string.sub(item, 27)
  local key = k_run(run)
  local f = redis.call('HMGET', key, 'st', 'l' .. suffix, 'f', 'k', 'a', 't', 'su' .. suffix, 'h', 'w' .. suffix, 'np', 'ne', 'pa')
  local expiry = tonumber(redis.call('ZSCORE', k_leases(), item) or 0)
  local outcome = 'kept'
  if f[2] == token and expiry <= NOW and not ended(f[1]) then
    redis.call('ZREM', k_leases(), item)
    local alive = tonumber(redis.call('ZSCORE', k_workers(), f[9] or '') or 0) > NOW
    if f[1] == 'x' then
      redis.call('HDEL', key, 'l' .. suffix)
      leave(item, f)
      -- Whoever cancelled it said why.
      finish(run, 'k', redis.call('HGET', key, 'er') or err, { st = 'x', np = f[10], ne = f[11], pa = f[12], distributed = true }, { 'lt', '' })
      outcome = 'cancelled'
    elseif f[7] == '1' and not alive then
      local crashes = redis.call('HINCRBY', key, 'cr' .. suffix, 1)
      if crashes >= most then
        redis.call('HDEL', key, 'l' .. suffix)
        leave(item, f)
        finish(run, 'f', err, { st = f[1], np = f[10], ne = f[11], pa = f[12], distributed = true }, { 'lt', '' })
        outcome = 'failed'
      else
        requeue(item, run, suffix, f, true)
        outcome = 'suspect'
      end
    else
      requeue(item, run, suffix, f, not alive)
      outcome = alive and 'queued' or 'suspect'
    end
  end
  out[#out + 1] = { item, outcome }
end
return out
