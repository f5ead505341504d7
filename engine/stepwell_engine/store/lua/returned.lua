-- returned.lua  The hot form of commit.lua's `F c`: functions returned, with nothing pending, nobody watching and no parent waiting.
-- KEYS root
-- ARGV offset [run token output]...
-- Many at once, as record.lua. Returns for each 1, or 0 when it is not the plain case: nothing was written for it, and commit.lua decides.
local root, out = KEYS[1], {}
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2] + ARGV[1] * 1000
local at, now = string.format('%.0f', us), string.format('%.0f', math.floor(us / 1000))
local ended, leases = {}, {}
for i = 2, #ARGV, 3 do
  local run, token = ARGV[i], ARGV[i + 1]
  local key = root .. ':r:' .. run
  local v = redis.call('HMGET', key, 'l', 'st', 'np', 'pa', 'h', 'ne')
  if v[1] ~= token or v[2] ~= 'r' or (v[3] and v[3] ~= '0') or v[4] or redis.call('EXISTS', root .. ':wt:' .. run) == 1 then
    out[#out + 1] = 0
  else
    redis.call('HSET', key, 'st', 'c', 'o', ARGV[i + 2], 'ea', now, 'lt', token, 'h', (v[5] or '') .. 'F' .. now .. ' c\n')
    redis.call('HDEL', key, 'l', 'rs', 'su', 'np', 'dv')
    leases[#leases + 1] = run
    ended[#ended + 1] = now
    ended[#ended + 1] = run
    if not v[6] then
      redis.call('XADD', root .. ':ev', '*', 'k', 'f', 'i', '', 'n', 'inngest/function.finished', 't', at, 'd', run, 'x', '')
    end
    out[#out + 1] = 1
  end
end
if #leases > 0 then
  redis.call('ZREM', root .. ':lease', unpack(leases))
  redis.call('ZADD', root .. ':ended', unpack(ended))
end
return out
