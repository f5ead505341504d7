-- plan.lua  Fix the fan-out plan of an event that reaches other shards: the first coordinator's word holds for every redelivery.
-- KEYS root
-- ARGV event record ttl
-- Returns the plan that holds. The TTL starts again with the acknowledgement (fanout.lua).
local known = redis.call('GET', k_record(ARGV[1]))
if known then return known end
redis.call('SET', k_record(ARGV[1]), ARGV[2], 'PX', ARGV[3])
return ARGV[2]
