-- signal_reserve.lua  A run's step claims a signal name on the name's home shard, before its wait is written.
-- KEYS root
-- ARGV offset hash run step expiry_ms replace_holder
-- replace_holder: '' = take it only when free or expired; else the holder ("run:step") that the caller found gone or may replace.
-- Returns {taken?, holder, held value?}: a held signal stays until signal_free.lua, so a taker that dies
-- before it recorded the value is given it again.
--- include time
local key = k_signal(ARGV[2])
local me = ARGV[3] .. ':' .. ARGV[4]
local f = redis.call('HMGET', key, 'who', 'until', 'held', 'held_until')
local who = f[1]
if who and tonumber(f[2]) <= NOW then who = false end
if who and who ~= me and who ~= ARGV[6] then return { 0, who } end
local held = f[3]
if held and tonumber(f[4]) <= NOW then held = false end
redis.call('HSET', key, 'who', me, 'until', NOW + tonumber(ARGV[5]))
redis.call('PEXPIRE', key, tonumber(ARGV[5]) + 86400000)
return { 1, me, held or nil }
