-- started.lua  A suspect says which step it is about to run, so that a crash can be blamed on it.
-- KEYS root
-- ARGV run step token what
-- Returns 1, or 0 when the lease is lost.
local sfx = ARGV[2] == '' and '' or ':' .. ARGV[2]
if redis.call('HGET', k_run(ARGV[1]), 'l' .. sfx) ~= ARGV[3] then return 0 end
redis.call('HSET', k_run(ARGV[1]), 'ss' .. sfx, ARGV[4])
return 1
