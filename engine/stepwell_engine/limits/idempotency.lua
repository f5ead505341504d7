-- One run per key in 24 h: `idem:<id>` holds 13 digits of expiry in engine time, then the run. The TTL is only garbage collection.
--- include time
local IDEMPOTENT_MS = 86400000
local KEYED = {} -- what is known of keys in this call, by id: the value, or false

local function look_up_keys(ids)
  for from = 1, #ids, 1000 do
    local keys, to = {}, math.min(from + 999, #ids)
    for i = from, to do keys[#keys + 1] = k_idempotency(ids[i]) end
    for i, value in ipairs(redis.call('MGET', unpack(keys))) do KEYED[ids[from + i - 1]] = value end
  end
end

-- The run that has the key, or nil.
local function keyed_run(id)
  local known = KEYED[id]
  if known == nil then known = redis.call('GET', k_idempotency(id)) end
  if known and tonumber(string.sub(known, 1, 13)) > NOW then return string.sub(known, 14) end
end

local function hold_key(id, run)
  KEYED[id] = string.format('%013.0f', NOW + IDEMPOTENT_MS) .. run
  redis.call('SET', k_idempotency(id), KEYED[id], 'PX', IDEMPOTENT_MS * 2)
end

-- The run didn't come about: its key is free again.
local function free_key(id, run)
  if keyed_run(id) ~= run then return end
  KEYED[id] = false
  redis.call('DEL', k_idempotency(id))
end
