-- watch.lua  Ask to be told of a run's end on a reply list. The run may not exist yet.
-- KEYS root
-- ARGV run watcher ttl_ms
-- Returns the status now ('' when unknown); an ended run is not watched.
local st = redis.call('HGET', k_run(ARGV[1]), 'st')
if st == 'c' or st == 'f' or st == 'k' then return st end
redis.call('SADD', k_watchers(ARGV[1]), ARGV[2])
local left = redis.call('PTTL', k_watchers(ARGV[1]))
if left < tonumber(ARGV[3]) then redis.call('PEXPIRE', k_watchers(ARGV[1]), ARGV[3]) end
return st or ''
