-- returned.lua  The hot form of commit.lua's `F c`: the function returned, nothing is pending, nobody watches, no parent waits.
-- KEYS root
-- ARGV offset run token output
-- Returns true, or false when this is not the plain case: nothing was written then, and commit.lua decides.
local root, run = KEYS[1], ARGV[2]
local key = root .. ':r:' .. run
local v = redis.call('HMGET', key, 'l', 'st', 'np', 'pa', 'h', 'ne')
if v[1] ~= ARGV[3] or v[2] ~= 'r' or (v[3] and v[3] ~= '0') or v[4] then return false end
if redis.call('EXISTS', root .. ':wt:' .. run) == 1 then return false end
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2] + ARGV[1] * 1000
local now = string.format('%.0f', math.floor(us / 1000))
redis.call('HSET', key, 'st', 'c', 'o', ARGV[4], 'ea', now, 'lt', ARGV[3], 'h', (v[5] or '') .. 'F' .. now .. ' c\n')
redis.call('HDEL', key, 'l', 'rs', 'su', 'np', 'dv')
redis.call('ZREM', root .. ':lease', run)
redis.call('ZADD', root .. ':ended', now, run)
if not v[6] then
  redis.call('XADD', root .. ':ev', '*', 'k', 'f', 'i', '', 'n', 'inngest/function.finished', 't', string.format('%.0f', us), 'd', run,
    'x', '')
end
return true
