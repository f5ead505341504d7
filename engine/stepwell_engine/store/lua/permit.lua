-- permit.lua  A message between the home of a shared concurrency gate and a shard whose key waits there (limits/concurrency.lua).
-- KEYS root
-- ARGV offset kind gate permit word home
-- kind: g asks for a permit (at home; word = `<stamp> <limit>`, a later one stays) · G grants it (at the asker; the word it was granted
-- under) · h gives it back (at home). Each may come twice, late, and in any order.
--- include ready
local kind, id, permit, word, home = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local holder = '@' .. permit

if kind == 'g' then
  if redis.call('ZSCORE', k_slots(id), holder) then return 0 end
  local known = redis.call('HGET', k_asks(id), permit)
  if known and tonumber(string.match(known, '^%d+')) >= tonumber(string.match(word, '^%d+')) then return 0 end
  redis.call('HSET', k_asks(id), permit, word)
  redis.call('ZADD', k_parked(id), 'NX', NOW_US, holder)
  open_shared(id)
elseif kind == 'G' then
  local member = redis.call('ZRANGE', k_parked(id), 0, 0)[1]
  if redis.call('HDEL', k_asks(id), permit) == 0 then
    -- In use, or over: an old message asked for it once more.
    if not redis.call('ZSCORE', k_permits(id), permit) then owe('h', home, id, permit, '') end
    return 0
  end
  local stamp, gate = tonumber(string.match(word, '^%d+')), member and gate_named(id, split_member(member))
  if gate and stamp <= gate.since then
    -- Granted under a limit that is no more. Its number is used up: who still waits asks for another.
    owe('h', home, id, permit, '')
    settle(gate)
    return 0
  end
  redis.call('ZADD', k_permits(id), stamp, permit)
  local spare = spare_permits(id, redis.call('ZCARD', k_slots(id)))
  if not member then
    -- Whoever wanted it is gone, unless an earlier holder never had one.
    if spare > 0 then
      redis.call('ZREM', k_permits(id), permit)
      owe('h', home, id, permit, '')
    end
  elseif spare == 1 then
    -- With more to spare a key is on its way, and passes on what it leaves.
    open_next(id)
  elseif spare < 1 then
    settle(gate)
  end
elseif redis.call('ZREM', k_slots(id), holder) == 1 then
  open_shared(id)
end
return 1
