-- fanout.lua  What a batch of events causes on this shard, and their acknowledgement, in one write.
-- KEYS root
-- ARGV offset group record_ttl guards [guard]... acks [entry]... events [event record]... [fn lane start noemit parent key count [run blob created]...]...
-- Runs of one kind share what they have in common. Guards: the registry's version and event names; unless it is that version and nobody
-- waits for those names, nothing is written; returned is -1, or who waits (lib/acknowledge.lua): the caller guessed, to save asking first.
-- An entry is acknowledged and deleted in the same write as its effects: a redelivered batch finds its runs existing, since a
-- run's hash outlives every delivery of its event (sweep.lua waits for the streams). A batch whose entries are all gone was handled by
-- another coordinator, with its plan: this late word does nothing. Returns how many runs were created.
--- include create, acknowledge
local at, stop = acknowledge()
if not at then return stop end
local n
local created = 0
while ARGV[at] do
  local g = group(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
  n = tonumber(ARGV[at + 6])
  local last = at + 4 + n * 3
  local new = fresh(at + 7, last)
  for o = at + 7, last, 3 do
    created = created + create(g, ARGV[o], ARGV[o + 1], ARGV[o + 2], new)
  end
  at = at + 7 + n * 3
end
enter()
return created
