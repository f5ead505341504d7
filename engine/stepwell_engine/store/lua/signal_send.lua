-- signal_send.lua  Who waits for a signal? If nobody (or the caller found `stale` gone), hold the value for `hold` ms when asked to.
-- KEYS root
-- ARGV offset hash value hold stale
-- Returns "run:step" of the holder, or ''.
--- include time
local key = k_signal(ARGV[2])
local f = redis.call('HMGET', key, 'who', 'until')
if f[1] and tonumber(f[2]) > NOW and f[1] ~= ARGV[5] then return f[1] end
if f[1] then redis.call('HDEL', key, 'who', 'until') end
local hold = tonumber(ARGV[4])
if hold > 0 then
  redis.call('HSET', key, 'held', ARGV[3], 'held_until', NOW + hold)
  redis.call('PEXPIRE', key, hold + 86400000)
end
return ''
