-- tick.lua  Cron ticks of one function come true: their runs, what is handled, and the next moment to look, in one write.
-- KEYS root
-- ARGV offset fn next ttl before [field value]... after [field value]... events [event record]... [fn lane start noemit parent key count [run blob created flow]...]...
-- State: the hash cron:<fn>, trigger → 13 digits of ms up to which its ticks are handled, then the run of its last tick that had one.
-- Invariants:
-- * The item %<fn> is in `due` if and only if the hash exists. due.lua leaves it there, so ticks stay due until this write.
-- * A plan holds only for the state it was made from: unless the hash is `before`, nothing is written. So of several coordinators one
--   brings a tick about, and a call whose reply was lost does nothing the second time.
-- * Callers read the hash first and the registry after it, so nobody replaces triggers by older ones.
-- * A tick's run and event have ids made of (app, function, tick): two crons of a function at one tick are one run.
-- * Whether a tick's run begins is decided as for events (limits/admit.lua).
-- `after` without fields: the function has no crons any more. Returns {1 if written, runs created}.
--- include limits/admit
local hash, item = k_cron(ARGV[2]), '%' .. ARGV[2]
local ttl, at = ARGV[4], 5
local n = tonumber(ARGV[at])
if redis.call('HLEN', hash) ~= n then return { 0, 0 } end
for i = at + 1, at + n * 2, 2 do
  if redis.call('HGET', hash, ARGV[i]) ~= ARGV[i + 1] then return { 0, 0 } end
end
at = at + n * 2 + 1
n = tonumber(ARGV[at])
redis.call('DEL', hash)
if n == 0 then
  redis.call('ZREM', k_due(), item)
else
  redis.call('HSET', hash, unpack(ARGV, at + 1, at + n * 2))
  schedule(item, tonumber(ARGV[3]))
end
at = at + n * 2 + 1
n = tonumber(ARGV[at])
for i = 0, n - 1 do
  redis.call('SET', k_record(ARGV[at + 1 + i * 2]), ARGV[at + 2 + i * 2], 'PX', ttl)
end
at = at + n * 2 + 1
admit_all(at)
enter()
return { 1, #STARTED }
