-- ingest.lua  Accept the events of one send call on this shard: all or none, once however often the call is retried.
-- KEYS root
-- ARGV offset seed seed_ttl max_len dedupe count [kind name encoded entropy id_hash extra]...
-- entropy: the 16 last characters of the event's id, or a whole id fixed by the shard that owed the event.
-- Returns {time chars of the ids, {id of the first event for a duplicate, else ''}...}; error FULL when the stream is at its length.
--- include time, ulid
local seed, count = ARGV[2], tonumber(ARGV[6])
local stamp, at = ulid_time(NOW), string.format('%d', NOW_US)
local reply, own = { stamp }, false
for i = 1, count do
  reply[i + 1] = ''
  own = own or ARGV[5 + i * 6] ~= ''
end

-- Without ids of the senders' own the reply is known by now: its time chars are remembered by the write that asks whether there are any already.
local length = redis.call('XLEN', k_events())
local full = length + count > tonumber(ARGV[4])
local new = not own and not full and redis.call('SET', k_send(seed), stamp, 'NX', 'PX', ARGV[3])
local remembered = not new and redis.call('GET', k_send(seed))
if remembered then
  if #remembered > #stamp then return cmsgpack.unpack(remembered) end
  reply[1] = remembered
  return reply
end
if full then return redis.error_reply('FULL ' .. length) end

local horizon = tonumber(ARGV[5])
for i = 0, count - 1 do
  local o = 6 + i * 6
  local hash, first = ARGV[o + 5], ''
  local id = #ARGV[o + 4] == 26 and ARGV[o + 4] or stamp .. ARGV[o + 4]
  if hash ~= '' then
    -- 13 digits of expiry in engine time, then the first event's id: the TTL is only garbage collection.
    local known = redis.call('GET', k_event_id(hash))
    if known and tonumber(string.sub(known, 1, 13)) > NOW then
      first = string.sub(known, 14)
      -- Whoever sent an owed event knows it by an id that it was given before: that id tells of the first one.
      if #ARGV[o + 4] == 26 and first ~= id then redis.call('SET', k_record(id), 'D' .. first, 'PX', horizon * 2) end
    else
      redis.call('SET', k_event_id(hash), string.format('%013.0f', NOW + horizon) .. id, 'PX', horizon * 2)
    end
  end
  if first == '' then
    redis.call('XADD', k_events(), '*', 'k', ARGV[o + 1], 'i', id, 'n', ARGV[o + 2], 't', at, 'd', ARGV[o + 3], 'x', ARGV[o + 6])
  end
  reply[i + 2] = first
end
if own then redis.call('SET', k_send(seed), cmsgpack.pack(reply), 'PX', ARGV[3]) end
return reply
