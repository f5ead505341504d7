-- awaited.lua  Which of these event names are waited for on this shard, and by which paths.
-- KEYS root
-- ARGV name...
-- Returns, for each name, the paths in use ([] when nobody waits).
local out = {}
for i, name in ipairs(ARGV) do out[i] = redis.call('HKEYS', k_wait_paths(name)) end
return out
