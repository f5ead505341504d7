-- fanout.lua  What a batch of events causes on this shard, and their acknowledgement, in one write.
-- KEYS root
-- ARGV offset group record_ttl acks [entry]... events [event record]... runs [run fn lane blob start created noemit parent key score]...
-- An entry is acknowledged and deleted in the same write as its effects: a redelivered batch finds its runs existing, since a
-- run's hash outlives every delivery of its event (sweep.lua waits for the streams). A batch whose entries are all gone was handled by
-- another coordinator, with its plan: this late word does nothing. Returns how many runs were created.
--- include create
local group, ttl = ARGV[2], ARGV[3]
local at = 4
local n = tonumber(ARGV[at])
if n > 0 then
  local left = 0
  for from = at + 1, at + n, 1000 do
    local to = math.min(from + 999, at + n)
    redis.call('XACK', k_events(), group, unpack(ARGV, from, to))
    left = left + redis.call('XDEL', k_events(), unpack(ARGV, from, to))
  end
  if left == 0 then return 0 end
end
at = at + n + 1
n = tonumber(ARGV[at])
for i = 0, n - 1 do
  redis.call('SET', k_record(ARGV[at + 1 + i * 2]), ARGV[at + 2 + i * 2], 'PX', ttl)
end
at = at + n * 2 + 1
n = tonumber(ARGV[at])
local created = 0
for i = 0, n - 1 do
  local o = at + i * 10
  created = created + create(ARGV[o + 1], ARGV[o + 2], ARGV[o + 3], ARGV[o + 4], tonumber(ARGV[o + 5]), ARGV[o + 6], ARGV[o + 7],
    ARGV[o + 8], ARGV[o + 9], ARGV[o + 10])
end
return created
