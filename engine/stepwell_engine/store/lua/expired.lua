-- expired.lua  Leases past their time, for reclaim.lua to act on once the caller has built the error a crash too many would need.
-- KEYS root
-- ARGV offset limit
-- Returns {[item, token, fn, worker, worker lives?, suspect, crashes, started step]...}
--- include time
local out = {}
for _, item in ipairs(redis.call('ZRANGEBYSCORE', k_leases(), '-inf', NOW, 'LIMIT', 0, tonumber(ARGV[2]))) do
  local run, suffix = string.sub(item, 1, 26), string.sub(item, 27)
  local f = redis.call('HMGET', k_run(run), 'l' .. suffix, 'f', 'w' .. suffix, 'su' .. suffix, 'cr' .. suffix, 'ss' .. suffix, 'st')
  if not f[1] or f[1] == '' then
    redis.call('ZREM', k_leases(), item)
  else
    local alive = tonumber(redis.call('ZSCORE', k_workers(), f[3] or '') or 0) > NOW
    out[#out + 1] = { item, f[1], f[2], f[3] or '', alive and 1 or 0, f[4] or '', f[5] or '0', f[6] or '' }
  end
end
return out
