-- configure.lua  Publish what the gates of this shard's functions allow, as read from one version of the registry.
-- KEYS root
-- ARGV offset version limit told [fn lane 0 1 interval burst shards]...
-- lane: '' for a function without gates; 0, 1: limits of the concurrency entries, '' = none; interval (us), burst: the throttle, '' = none.
-- A limit that events give is `*`, such an interval `*<period in us>`: what held before is kept beside it (limits/limit.py).
-- A later version's word stays. A change lets every key that is parked now try again, about `limit` a call: `d` says how far that is,
-- whoever goes on with it (keys that park meanwhile do so under the new word). Returns the functions that are not through: call again.
-- `told` = '1': every shard has been told of this version. Permits granted on the way there don't count (limits/concurrency.lua): a shard
-- that knew of a lower limit may have been given one while another, that did not, was given more than that. `u` of `fl:<fn>` is a
-- change of which that has not been said yet.
--- include ready
local version, most, told, left = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1', {}
local asked_again = {}

local function beside(value, old)
  if string.byte(value) ~= 42 then return value end
  return value .. ' ' .. string.match(old or '', '%d*$')
end

local function write(fn, values)
  local key = k_flow(fn)
  local old = redis.call('HMGET', key, 'v', 'a', '0', '1', 't', 'b', 'n')
  if not old[1] and values[1] == '' then return end
  if old[1] and tonumber(old[1]) > version then return end
  -- Keys made when it had gates still need its lane.
  if values[1] == '' then values[1] = old[2] end
  for i = 2, 4 do values[i] = beside(values[i], old[i + 1]) end
  local same = old[1] ~= false
  for i, value in ipairs(values) do same = same and old[i + 1] == value end
  redis.call('HSET', key, 'v', version)
  if same then return end
  redis.call('HSET', key, 'a', values[1], '0', values[2], '1', values[3], 't', values[4], 'b', values[5], 'n', values[6], 'd', '0', 'c', mark_now())
  if tonumber(values[6]) > 1 then redis.call('HSET', key, 'u', '1') end
end

local function confirm(fn)
  local f = redis.call('HMGET', k_flow(fn), 'v', 'u')
  if not f[2] or tonumber(f[1]) > version then return end
  redis.call('HDEL', k_flow(fn), 'u')
  redis.call('HSET', k_flow(fn), 'c', mark_now(), 'd', '0')
end

local function let_go(fn)
  local from = redis.call('HGET', k_flow(fn), 'd')
  if not from then return end
  local page = redis.call('HSCAN', k_parks(fn), from, 'COUNT', most)
  local parks = page[2]
  for i = 1, #parks, 2 do
    local key, gate = parks[i], gate_named(string.sub(parks[i + 1], 2), fn, parks[i])
    if not told then
      unpark(fn, key)
      try_again(fn, key, 0)
    end
    if gate.shared and not asked_again[gate.id] then
      asked_again[gate.id] = true
      ask_again(gate)
    end
  end
  if page[1] == '0' then
    redis.call('HDEL', k_flow(fn), 'd')
  else
    redis.call('HSET', k_flow(fn), 'd', page[1])
    left[#left + 1] = fn
  end
end

for i = 5, #ARGV, 7 do
  local fn = ARGV[i]
  if told then
    confirm(fn)
  else
    write(fn, { ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6] })
  end
end
-- All have their marks before any of them asks: functions that share a gate can use each other's permits.
for i = 5, #ARGV, 7 do
  let_go(ARGV[i])
end
return left
