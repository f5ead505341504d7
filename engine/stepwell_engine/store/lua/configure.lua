-- configure.lua  Publish what the gates of this shard's functions allow, as read from one version of the registry.
-- KEYS root
-- ARGV offset version limit [fn lane 0 1 interval burst shards]...
-- lane: '' for a function without gates; 0, 1: limits of the concurrency entries, '' = none; interval (us), burst: the throttle, '' = none.
-- A later version's word stays. A change lets every key that is parked now try again, about `limit` a call: `d` says how far that is,
-- whoever goes on with it (keys that park meanwhile do so under the new word). Returns the functions that are not through: call again.
--- include ready
local version, most, left = tonumber(ARGV[2]), tonumber(ARGV[3]), {}

local function write(fn, values)
  local key = k_flow(fn)
  local old = redis.call('HMGET', key, 'v', 'a', '0', '1', 't', 'b', 'n')
  if not old[1] and values[1] == '' then return end
  if old[1] and tonumber(old[1]) > version then return end
  -- Keys made when it had gates still need its lane.
  if values[1] == '' then values[1] = old[2] end
  local same = old[1] ~= false
  for i, value in ipairs(values) do same = same and old[i + 1] == value end
  redis.call('HSET', key, 'v', version)
  if same then return end
  redis.call('HSET', key, 'a', values[1], '0', values[2], '1', values[3], 't', values[4], 'b', values[5], 'n', values[6], 'd', '0')
end

local function let_go(fn)
  local from = redis.call('HGET', k_flow(fn), 'd')
  if not from then return end
  local page = redis.call('HSCAN', k_parks(fn), from, 'COUNT', most)
  local parks = page[2]
  for i = 1, #parks, 2 do
    local key, gate = parks[i], gate_named(string.sub(parks[i + 1], 2), fn, parks[i])
    unpark(fn, key)
    try_again(fn, key, 0)
    if gate.shared then ask_again(gate) end
  end
  if page[1] == '0' then
    redis.call('HDEL', k_flow(fn), 'd')
  else
    redis.call('HSET', k_flow(fn), 'd', page[1])
    left[#left + 1] = fn
  end
end

for i = 4, #ARGV, 7 do
  write(ARGV[i], { ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6] })
  let_go(ARGV[i])
end
return left
