-- signal_free.lua  A signal was delivered: its reservation goes, and what was held with it, if it is still that holder's.
-- KEYS root
-- ARGV hash holder
local key = k_signal(ARGV[1])
if redis.call('HGET', key, 'who') == ARGV[2] then
  redis.call('HDEL', key, 'who', 'until', 'held', 'held_until')
  return 1
end
return 0
