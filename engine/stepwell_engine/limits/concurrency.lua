-- Slots of a concurrency gate: `cs:<id>` has their holders. A gate that functions of several shards share has its slots at its home shard;
-- elsewhere ("away") a holder needs a permit, which is a slot there held in this shard's name, `@<shard>-<n>`:
--   asked (outbox g) when keys park · granted (G) when a slot is free · given back (h) when its holder leaves, or nobody wants it.
-- Messages may come twice, late and in any order. A permit's number is used once; a grant that nobody asked for is given back, so
-- whatever an old message causes at home ends there.
-- `ga:<id>` has the permits asked for and not granted, at both sides, as `<version> <limit>`: what the gate allows, as of which registry.
-- Invariant, away: asked + spare permits >= parked keys; with a spare permit and a parked key, a key is on its way (gates.lua).
--- include time, shard
local open_next, open_shared -- gates.lua: one of those who wait for a gate may try again
local ASKED_AGAIN = {}

local function home_of(gate)
  if not gate.shared or gate.shards < 2 then return HERE end
  local hash = 0
  for i = 1, 8 do hash = (hash * 31 + string.byte(gate.id, i)) % 65521 end
  return hash % gate.shards
end

-- Negative away: holders that began without a permit, as there was no limit.
local function room_of(gate)
  local held = redis.call('ZCARD', k_slots(gate.id))
  if gate.home ~= HERE then return redis.call('ZCARD', k_permits(gate.id)) - held end
  return gate.limit - held
end

local function take_slot(gate, holder)
  redis.call('ZADD', k_slots(gate.id), 'NX', NOW, holder)
end

local function give_back(gate, n)
  local permits = redis.call('ZPOPMIN', k_permits(gate.id), n)
  for i = 1, #permits, 2 do owe('h', gate.home, gate.id, permits[i], '') end
end

-- `parked`: whether keys of its function may wait for a gate.
local function leave_slot(gate, holder, parked)
  if redis.call('ZREM', k_slots(gate.id), holder) == 0 then return end
  if gate.home ~= HERE then
    if room_of(gate) > 0 then give_back(gate, 1) end
  elseif gate.shared then
    open_shared(gate.id)
  elseif parked then
    open_next(gate.id)
  end
end

local function ask(gate, permit)
  local word = gate.version .. ' ' .. string.format('%d', gate.limit)
  redis.call('HSET', k_asks(gate.id), permit, word)
  owe('g', gate.home, gate.id, permit, word)
end

-- Away, after a visit: a permit for each key that waits, and none that nobody uses.
local function settle(gate)
  local spare, waiting = math.max(room_of(gate), 0), redis.call('ZCARD', k_parked(gate.id))
  if waiting == 0 then
    if spare > 0 then give_back(gate, spare) end
    return
  end
  if gate.limit then
    for _ = redis.call('HLEN', k_asks(gate.id)) + spare + 1, waiting do
      ask(gate, HERE .. '-' .. redis.call('INCR', k_permit_serial()))
    end
  end
  if spare > 0 then open_next(gate.id) end
end

-- Away: the limit changed; what is asked for is asked for again, under the new one.
local function ask_again(gate)
  if gate.home == HERE or not gate.limit or ASKED_AGAIN[gate.id] then return end
  ASKED_AGAIN[gate.id] = true
  for _, permit in ipairs(redis.call('HKEYS', k_asks(gate.id))) do ask(gate, permit) end
end

local function grant(id, member)
  local permit = string.sub(member, 2)
  redis.call('ZREM', k_parked(id), member)
  redis.call('HDEL', k_asks(id), permit)
  redis.call('ZADD', k_slots(id), NOW, member)
  owe('G', string.match(permit, '^%d+'), id, permit, '')
end
