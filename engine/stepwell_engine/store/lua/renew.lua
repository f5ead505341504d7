-- renew.lua  A worker's heartbeat: it lives, and these leases are still its own.
-- KEYS root
-- ARGV offset worker alive_ms lease_ms [item token]...
-- Returns the items whose lease it lost (another token holds them, or their run ended).
--- include time
redis.call('ZADD', k_workers(), NOW + tonumber(ARGV[3]), ARGV[2])
redis.call('ZREMRANGEBYSCORE', k_workers(), '-inf', NOW - 3600000)
local lost = {}
for i = 5, #ARGV, 2 do
  local item = ARGV[i]
  local run, suffix = string.sub(item, 1, 26), string.sub(item, 27)
  if redis.call('HGET', k_run(run), 'l' .. suffix) == ARGV[i + 1] then
    redis.call('ZADD', k_leases(), NOW + tonumber(ARGV[4]), item)
  else
    lost[#lost + 1] = item
  end
end
return lost
