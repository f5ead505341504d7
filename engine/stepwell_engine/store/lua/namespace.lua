-- namespace.lua  Open a namespace: fix its shard count the first time, report it ever after.
-- KEYS root
-- ARGV shards schema
-- Returns {shards, schema} as stored.
redis.call('HSETNX', k_meta(), 'shards', ARGV[1])
redis.call('HSETNX', k_meta(), 'schema', ARGV[2])
return redis.call('HMGET', k_meta(), 'shards', 'schema')
