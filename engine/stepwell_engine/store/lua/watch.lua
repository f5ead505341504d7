-- watch.lua  Ask to be told of a run's end on a reply list. The run may not exist yet.
-- KEYS root
-- ARGV run watcher ttl_ms
-- Returns the status now, '' when unknown, 'open' when a debounce or batch gathers events for it, or the outcome in `oc:<run>` (longer than
-- a status) of a run that will not be; neither that nor an ended run is watched.
local st = redis.call('HGET', k_run(ARGV[1]), 'st')
if st == 'c' or st == 'f' or st == 'k' then return st end
local outcome = not st and redis.call('HVALS', k_outcome(ARGV[1]))[1]
local open = outcome and string.sub(outcome, 1, 5) == 'open '
if outcome and not open then return outcome end
redis.call('SADD', k_watchers(ARGV[1]), ARGV[2])
local left = redis.call('PTTL', k_watchers(ARGV[1]))
if left < tonumber(ARGV[3]) then redis.call('PEXPIRE', k_watchers(ARGV[1]), ARGV[3]) end
return st or open and 'open' or ''
