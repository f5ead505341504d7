-- answered.lua  A look-back of a run's cancels found no event that cancels it: the run is held for that one no longer.
-- KEYS root
-- ARGV offset run entry
-- entry: the look-back's in the stream of events. Returns 1 when that let the run go, 0 when others hold it, or none did.
--- include limits/cancel
return let_go(ARGV[2], ARGV[3])
