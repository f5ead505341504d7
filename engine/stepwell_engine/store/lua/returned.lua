-- returned.lua  The hot form of commit.lua's `F c`: functions returned, with nothing pending, nobody watching and no parent waiting.
-- KEYS root
-- ARGV offset [run token output]...
--- include release
-- Many at once, as record.lua. Returns for each 1, or 0 when it is not the plain case: nothing was written for it, and commit.lua decides.
-- All ends together are one entry of the stream: their runs' ids in a row.
local root, out, now = ROOT, {}, NOW_S
local ended, leases, told = {}, {}, {}
local watchers = {}
for i = 2, #ARGV, 3 do watchers[#watchers + 1] = root .. ':wt:' .. ARGV[i] end
local watched = redis.call('EXISTS', unpack(watchers)) > 0
for i = 2, #ARGV, 3 do
  local run, token = ARGV[i], ARGV[i + 1]
  local key = root .. ':r:' .. run
  local v = redis.call('HMGET', key, 'l', 'st', 'np', 'pa', 'h', 'ne', 'fx', 'k', 'f')
  if v[1] ~= token or v[2] ~= 'r' or (v[3] and v[3] ~= '0') or v[4]
    or (watched and redis.call('EXISTS', root .. ':wt:' .. run) == 1) then
    out[#out + 1] = 0
  else
    if v[5] then
      redis.call('HSET', key, 'st', 'c', 'o', ARGV[i + 2], 'ea', now, 'lt', token, 'l', '', 'rs', '', 'h', v[5] .. 'F' .. now .. ' c\n')
    else
      redis.call('HSET', key, 'st', 'c', 'o', ARGV[i + 2], 'ea', now, 'lt', token, 'l', '', 'rs', '')
    end
    if v[8] then vacate_later(run, v[9], v[8]) end
    if v[7] then release_run(run, v[7], v[9], v[8]) end
    leases[#leases + 1] = run
    ended[#ended + 1] = now
    ended[#ended + 1] = run
    if not v[6] then told[#told + 1] = run end
    out[#out + 1] = 1
  end
end
write_gathered()
if #leases > 0 then
  redis.call('ZREM', root .. ':lease', unpack(leases))
  redis.call('ZADD', root .. ':ended', unpack(ended))
end
if #told > 0 then
  redis.call('XADD', root .. ':ev', '*', 'k', 'f', 'i', '', 'n', 'inngest/function.finished', 't', digits(NOW_US),
    'd', table.concat(told), 'x', '')
end
return out
