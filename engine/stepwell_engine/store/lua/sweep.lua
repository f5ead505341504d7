-- sweep.lua  Remove runs that ended before `before` (ms), a bounded number. The caller holds `before` below the oldest undelivered or pending entry of
-- every shard's streams, so that no internal event refers to a removed run and no redelivered event can start one again.
-- KEYS root
-- ARGV before limit
-- Returns how many were removed.
local runs = redis.call('ZRANGEBYSCORE', k_ended(), '-inf', '(' .. ARGV[1], 'LIMIT', 0, tonumber(ARGV[2]))
for _, run in ipairs(runs) do
  local fn = redis.call('HGET', k_run(run), 'f')
  if fn then redis.call('ZREM', k_fn_runs(fn), run) end
  redis.call('UNLINK', k_run(run))
  redis.call('ZREM', k_ended(), run)
end
return #runs
