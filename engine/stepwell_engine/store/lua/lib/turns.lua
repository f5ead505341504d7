-- Bells, and indexes by virtual time.
-- One ring at most waits in a bell: whoever takes it and leaves work behind rings again (lease.lua), so a burst wakes a chain of
-- idle workers and a busy system pays little. (Not asked first whether one waits: mostly somebody idle takes it at once.)
local RUNG = {}
local function ring(lane)
  if RUNG[lane] then return end
  RUNG[lane] = true
  local bell = k_bell(lane)
  if redis.call('RPUSH', bell, '1') > 1 then redis.call('LPOP', bell) end
end

-- A newcomer's tag is one turn after the head's: ahead of nobody already waiting for longer, and never behind a hot key's tail. `first`: the tag
-- where nobody is.
local function join(index, members, first)
  local head = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  -- Who is in it already keeps his tag (NX); nearly always he is the head.
  if #members == 1 and head[1] == members[1] then return end
  first = first or 0
  local tagged, tag = {}, head[2] and head[2] + 1
  for i, member in ipairs(members) do
    tagged[i * 2 - 1] = tag or i == 1 and first or first + 1
    tagged[i * 2] = member
  end
  for from = 1, #tagged, 1000 do redis.call('ZADD', index, 'NX', unpack(tagged, from, math.min(from + 999, #tagged))) end
end
