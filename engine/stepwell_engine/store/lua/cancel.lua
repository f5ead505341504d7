-- cancel.lua  Cancel a run: at once when no worker holds it, else ask its workers and give them `grace` ms.
-- KEYS root
-- ARGV offset run error grace tombstone_fn
-- tombstone_fn: for a run that may still be created (a child whose event is on its way), '' otherwise: a cancelled run takes its place.
-- Returns the status after the call (k, x, or c / f when it had ended), or '' for an unknown run.
--- include finish
local run, key = ARGV[2], k_run(ARGV[2])
local f = redis.call('HMGET', key, 'st', 'rs', 'f', 'k', 'a', 'np', 'ne', 'pa', 'l', 'w')
local st = f[1]
if not st then
  if ARGV[5] == '' then return '' end
  redis.call('HSET', key, 'st', 'k', 'f', ARGV[5], 'a', '', 't', NOW, 'e', '', 'rs', '', 'ea', NOW, 'er', ARGV[3])
  redis.call('ZADD', k_fn_runs(ARGV[5]), NOW, run)
  redis.call('ZADD', k_ended(), NOW, run)
  return 'k'
end
if ended(st) or st == 'x' then return st end

local holders = {}
if f[2] == 'l' then holders[f[10] or ''] = true end
if tonumber(f[6] or '0') > 0 then
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'l:' and all[i + 1] ~= '' then
      holders[redis.call('HGET', key, 'w' .. string.sub(all[i], 2)) or ''] = true
    end
  end
end
if next(holders) then
  redis.call('HSET', key, 'st', move(st, 'x'), 'er', ARGV[3])
  schedule(run .. ':!', NOW + tonumber(ARGV[4]))
  for worker in pairs(holders) do tell(worker, 'c' .. run) end
  return 'x'
end
redis.call('ZREM', k_due(), run)
if f[2] == 'q' then dequeue(run, f[3], f[4] or '', f[5]) end
finish(run, 'k', ARGV[3], { st = st, np = f[6], ne = f[7], pa = f[8] }, { 'lt', '' })
return 'k'
