-- deny.lua  A run that a client asked for by invoke and waits for will never be: nothing is registered under that name.
-- KEYS root
-- ARGV offset run fn outcome
-- Returns 1, or 0 when there is such a run after all: its event was handled before. Twice is as good as once.
--- include limits/outcome
local run = ARGV[2]
if redis.call('EXISTS', k_run(run)) == 1 then return 0 end
note(run, ARGV[3], ARGV[4])
tell_watchers(run)
return 1
