-- record.lua  The hot form of commit.lua's `N` with one `d`: results of steps, of runs with nothing pending and no suspicion.
-- KEYS root
-- ARGV [run step token name record]...
-- Many at once, and kept apart from commit.lua, because a script pays for each call and for every function it defines. Returns for
-- each dv, or false when it is not the plain case: nothing was written for it, and commit.lua decides (it also words the refusals).
local root, out = KEYS[1], {}
for i = 1, #ARGV, 5 do
  local key = root .. ':r:' .. ARGV[i]
  local sfx = ARGV[i + 1]
  if sfx ~= '' then sfx = ':' .. sfx end
  local v = redis.call('HMGET', key, 'l' .. sfx, 'st', 'np', 'su' .. sfx, 'dv', 'sz')
  if v[1] ~= ARGV[i + 2] or v[2] ~= 'r' or (v[3] and v[3] ~= '0') or v[4] == '1' then
    out[#out + 1] = false
  else
    redis.call('HSET', key, 's:' .. ARGV[i + 3], ARGV[i + 4], 'sz', (v[6] or 0) + #ARGV[i + 4])
    out[#out + 1] = v[5] or '0'
  end
end
return out
