-- Slots of a concurrency gate: `cs:<id>` has their holders. A gate that functions of several shards share has its slots at its home shard;
-- elsewhere ("away") a holder needs a permit, which is a slot there held in this shard's name, `@<shard>-<n>`:
--   asked (outbox g) when keys park · granted (G) when a slot is free · given back (h) when its holder leaves, or nobody wants it.
-- Messages may come twice, late and in any order. A permit's number is used once; a grant that nobody asked for is given back, so
-- whatever an old message causes at home ends there.
-- `ga:<id>` has the permits asked for and not granted, at both sides, as `<stamp> <limit>`: what the gate allows, as of the asking. Stamps
-- are numbers of `gs` of the asking shard, as those of permits; a grant tells the word it was made under, and `gp:<id>` has its stamp.
-- A changed limit: `since` of a gate is the mark of its last change, the number that `gs` had then. Permits with a stamp up to it were
-- granted under an older limit, when more may have been held than now should be: nobody begins with one. What came to be under them
-- may stay: a permit is nobody's own, so old ones count as those of the holders. Invariant, once recalled: old permits <= holders, since
-- who leaves gives back the oldest. A spare one has a key on its way, whose visit recalls it.
-- `gr:<id>` has the keys of this shard for which a permit is kept, while they wait for a later one of their shared gates (gates.lua):
-- a spare permit is one that neither has a holder nor is kept. Invariant: kept <= permits.
-- Invariant, away: asked + spare permits >= parked keys; with a spare permit and a parked key, a key is on its way (gates.lua).
--- include time, shard, gather
local open_next, open_shared -- gates.lua: one of those who wait for a gate may try again
-- How many hold a gate of one function, with those that are gathered: what takes slots calls `write_gathered` (lib/gather.lua).
local HELD = {}

local function home_of(id, shards)
  if shards < 2 then return HERE end
  local hash = 0
  for i = 1, 8 do hash = (hash * 31 + string.byte(id, i)) % 65521 end
  return hash % shards
end

local function held_of(gate)
  if gate.shared then return redis.call('ZCARD', k_slots(gate.id)) end
  if not HELD[gate.id] then HELD[gate.id] = redis.call('ZCARD', k_slots(gate.id)) end
  return HELD[gate.id]
end

local function take_slot(gate, holder)
  if gate.shared then return redis.call('ZADD', k_slots(gate.id), 'NX', NOW_S, holder) end
  HELD[gate.id] = held_of(gate) + 1
  zadd_later(k_slots(gate.id), NOW_S, holder)
end

local function give_back(gate, n)
  local permits = redis.call('ZPOPMIN', k_permits(gate.id), n)
  for i = 1, #permits, 2 do owe('h', gate.home, gate.id, permits[i], '') end
end

-- Away: permits that neither have a holder nor are kept. Negative: holders began without one, as there was no limit.
local function spare_permits(id, held)
  return redis.call('ZCARD', k_permits(id)) - held - redis.call('ZCARD', k_kept(id))
end

-- Away: how many permits of an older limit that nobody uses were given back, those that are kept among them.
local function recall(gate, held)
  if gate.since == 0 then return 0 end
  local old = redis.call('ZCOUNT', k_permits(gate.id), '-inf', gate.since) - held
  if old > 0 then
    give_back(gate, old)
    local short = -spare_permits(gate.id, held)
    if short > 0 then redis.call('ZPOPMAX', k_kept(gate.id), short) end
  end
  return old
end

local function room_of(gate)
  local held = held_of(gate)
  if gate.home == HERE then return gate.limit - held end
  recall(gate, held)
  return spare_permits(gate.id, held)
end

local function mark_now()
  return tonumber(redis.call('GET', k_permit_serial()) or 0)
end

local function ask(gate, permit, stamp)
  local word = string.format('%d %d', stamp, gate.limit)
  redis.call('HSET', k_asks(gate.id), permit, word)
  owe('g', gate.home, gate.id, permit, word)
end

-- Away: what was asked for under an older limit is asked for again.
local function ask_again(gate)
  if gate.home == HERE or not gate.limit then return end
  local asks = redis.call('HGETALL', k_asks(gate.id))
  for i = 1, #asks, 2 do
    local stamp = tonumber(string.match(asks[i + 1], '^%d+'))
    if stamp <= gate.since then ask(gate, asks[i], redis.call('INCR', k_permit_serial())) end
  end
end

-- Away, after a visit: a permit for each key that waits, and none that nobody uses. `changed`: as after a change of the limit.
local function settle(gate, changed)
  local spare, waiting = math.max(room_of(gate), 0), redis.call('ZCARD', k_parked(gate.id))
  if waiting == 0 then
    if spare > 0 then give_back(gate, spare) end
    return
  end
  -- Without a limit nobody needs one.
  if not gate.limit then return open_next(gate.id) end
  local asked = redis.call('HLEN', k_asks(gate.id))
  -- The first who waits finds what was asked for by keys that are gone: if the limit changed meanwhile, nobody asked again.
  if asked > 0 and (changed or waiting == 1 and gate.since > 0) then ask_again(gate) end
  for _ = asked + spare + 1, waiting do
    local stamp = redis.call('INCR', k_permit_serial())
    ask(gate, HERE .. '-' .. stamp, stamp)
  end
  if spare > 0 then open_next(gate.id) end
end

-- `parked`: whether keys of its function may wait for a gate.
local function leave_slot(gate, holder, parked)
  if redis.call('ZREM', k_slots(gate.id), holder) == 0 then return end
  if HELD[gate.id] then HELD[gate.id] = HELD[gate.id] - 1 end
  if gate.home ~= HERE then
    -- The one it had is among those recalled, if there are any. (A spare one that is left has a key on its way.)
    if recall(gate, redis.call('ZCARD', k_slots(gate.id))) > 0 then
      if redis.call('EXISTS', k_parked(gate.id)) == 1 then settle(gate) end
    elseif room_of(gate) > 0 then
      give_back(gate, 1)
    end
  elseif gate.shared then
    open_shared(gate.id)
  elseif parked then
    open_next(gate.id)
  end
end

local function grant(id, member, word)
  local permit = string.sub(member, 2)
  redis.call('ZREM', k_parked(id), member)
  redis.call('HDEL', k_asks(id), permit)
  redis.call('ZADD', k_slots(id), NOW, member)
  owe('G', string.match(permit, '^%d+'), id, permit, word)
end
