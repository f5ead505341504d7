-- remember.lua  Keep events for waits that look back: of each name the newest, none older than `age`.
-- KEYS root
-- ARGV offset most age ttl [name us blob]...
-- us is the event's accept time; blob its id and encoding. Kept twice is kept once. Ages count in engine time; the TTL is only garbage collection.
--- include time
local oldest = digits(NOW_US - tonumber(ARGV[3]) * 1000)
for i = 5, #ARGV, 3 do
  local key = k_recent(ARGV[i])
  redis.call('ZADD', key, ARGV[i + 1], ARGV[i + 2])
  redis.call('ZREMRANGEBYRANK', key, 0, -tonumber(ARGV[2]) - 1)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. oldest)
  redis.call('PEXPIRE', key, ARGV[4])
end
