-- admit.lua  fanout.lua for runs of functions with flow control: for each event and function it decides whether, and as which run, it starts.
-- KEYS root
-- ARGV offset group record_ttl guards [guard]... acks [entry]... events [event record]... [fn lane start noemit parent key count [run blob created flow]...]...
-- All up to the runs, and what keeps a batch from being handled twice: as in fanout.lua. flow and the decisions: see limits/admit.lua.
-- Returns the function number of each run created (also of windows that closed), or where the guards don't hold {'-1'}, or who waits.
--- include limits/admit, acknowledge
local at, stop = acknowledge()
if not at then return stop == -1 and { '-1' } or stop == 0 and {} or stop end
admit_all(at)
enter()
return STARTED
