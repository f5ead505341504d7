-- Writes to keys that many runs share, gathered by key and made together: a script that gathers calls `write_gathered` before it reads
-- those keys again, and at its end.
local ADDED, REMOVED, COUNTED = {}, {}, {}

local function append(lists, key, one, other)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  local n = #list
  list[n + 1], list[n + 2] = one, other
end

local function zadd_later(key, score, member)
  append(ADDED, key, score, member)
end

local function zrem_later(key, member)
  append(REMOVED, key, member)
end

-- A count that comes to nothing is gone.
local function hincr_later(key, field, by)
  local counts = COUNTED[key]
  if not counts then
    counts = {}
    COUNTED[key] = counts
  end
  counts[field] = (counts[field] or 0) + by
end

local function each_thousand(command, lists)
  for key, list in pairs(lists) do
    for from = 1, #list, 1000 do redis.call(command, key, unpack(list, from, math.min(from + 999, #list))) end
  end
end

local function write_gathered()
  each_thousand('ZADD', ADDED)
  each_thousand('ZREM', REMOVED)
  for key, counts in pairs(COUNTED) do
    for field, n in pairs(counts) do
      if redis.call('HINCRBY', key, field, n) <= 0 then redis.call('HDEL', key, field) end
    end
  end
  ADDED, REMOVED, COUNTED = {}, {}, {}
end
