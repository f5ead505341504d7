-- cancel.lua  Cancel a run: at once when no worker holds it, else ask its workers and give them `grace` ms.
-- KEYS root
-- ARGV offset run error grace tombstone_fn children event child_event
-- tombstone_fn: for a run that may still be created (a child whose event is on its way), '' otherwise: a cancelled run takes its place.
-- children = '1': the runs that it waits for, or waited for when it ended, and theirs, are cancelled too.
-- event: the id of the event that cancels it, '' for none; `oc:<event>` has its runs on this shard: `!` how many, `!<run>` the function of the first.
-- child_event: of a child the id of the event that starts it, which a window may have taken.
-- The run of an open window is cancelled with all its events.
-- Returns the status after the call (k, x, or c / f when it had ended), or '' for an unknown run.
--- include cancel, limits/window
local NAMED = 100
local run, key = ARGV[2], k_run(ARGV[2])
local f = redis.call('HMGET', key, unpack(CANCEL_FIELDS))
if f[1] then
  if ARGV[6] == '1' then cancel_children(run) end
  if ARGV[7] ~= '' and not ended(f[1]) and f[1] ~= 'x' then
    local outcome = k_outcome(ARGV[7])
    if redis.call('HINCRBY', outcome, '!', 1) <= NAMED then redis.call('HSET', outcome, '!' .. run, f[3]) end
    redis.call('PEXPIRE', outcome, OUTCOME_MS)
  end
  return cancel_run(run, f, ARGV[3], tonumber(ARGV[4]))
end
if ARGV[8] ~= '' then
  local st = give_up(run, ARGV[5], ARGV[8], ARGV[3], tonumber(ARGV[4]), ARGV[6] == '1')
  if st then return st end
else
  local outcome = redis.call('HVALS', k_outcome(run))[1]
  local st = outcome and cancel_window(outcome, ARGV[3])
  if st then return st end
end
-- An outcome says that its event went into another run, or into none.
if ARGV[5] == '' or redis.call('HEXISTS', k_outcome(run), ARGV[5]) == 1 then return '' end
redis.call('HSET', key, 'st', 'k', 'f', ARGV[5], 'a', '', 't', NOW, 'e', '', 'rs', '', 'ea', NOW, 'er', ARGV[3])
redis.call('ZADD', k_fn_runs(ARGV[5]), NOW, run)
redis.call('ZADD', k_ended(), NOW, run)
return 'k'
