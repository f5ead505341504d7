-- resolve.lua  Deliver a result to a waiting step, if it still waits.
-- KEYS root
-- ARGV offset run step registered status value early
-- registered (us) names the very wait that was matched, '' = whichever is there. early = '1': a signal may come between its
-- reservation and the wait's own commit; it becomes the step's record at once, and the commit finds it.
-- Returns 1 when delivered (or delivered before), 0 when nobody waits.
--- include run
local run, step, key = ARGV[2], ARGV[3], k_run(ARGV[2])
local f = redis.call('HMGET', key, 'st', 'p:' .. step, 's:' .. step)
if not f[1] then return 0 end
-- Sent again after a lost reply, it may find a run that has gone on, or even ended, with what the first one brought.
-- A part of a record is no proof: a short value is found in any.
if f[3] then
  return string.sub(f[3], 1, 1) == 'x' and cmsgpack.unpack(string.sub(f[3], 2))[4] == ARGV[6] and 1 or 0
end
if ended(f[1]) then return 0 end
if f[2] then
  local p = cmsgpack.unpack(f[2])
  if ARGV[4] ~= '' and digits(p[3]) ~= ARGV[4] then return 0 end
  complete(run, step, p, ARGV[5], ARGV[6])
  return 1
end
if ARGV[7] ~= '1' then return 0 end
redis.call('HSET', key, 's:' .. step, 'x' .. cmsgpack.pack({ ARGV[5], NOW, '', ARGV[6] }))
redis.call('HINCRBY', key, 'dv', 1)
return 1
