-- record.lua  The hot form of commit.lua's `N` with one `d`: a step's result, for a run with nothing pending and no suspicion.
-- KEYS root
-- ARGV run step token name record
-- Kept apart because a script pays for every function it defines, each time it runs. Returns dv, or false when this is not the
-- plain case: nothing was written then, and commit.lua decides (it also words the refusals).
local key = KEYS[1] .. ':r:' .. ARGV[1]
local sfx = ARGV[2] == '' and '' or ':' .. ARGV[2]
local v = redis.call('HMGET', key, 'l' .. sfx, 'st', 'np', 'su' .. sfx, 'dv', 'sz')
if v[1] ~= ARGV[3] or v[2] ~= 'r' or (v[3] and v[3] ~= '0') or v[4] == '1' then return false end
redis.call('HSET', key, 's:' .. ARGV[4], ARGV[5], 'sz', (v[6] or 0) + #ARGV[5])
return v[5] or '0'
