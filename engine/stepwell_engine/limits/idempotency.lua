-- One run per key in 24 h: `idem:<id>` holds 13 digits of expiry in engine time, then the run. The TTL is only garbage collection.
--- include time
local IDEMPOTENT_MS = 86400000

-- The run that has the key, or nil.
local function keyed_run(id)
  local known = redis.call('GET', k_idempotency(id))
  if known and tonumber(string.sub(known, 1, 13)) > NOW then return string.sub(known, 14) end
end

local function hold_key(id, run)
  redis.call('SET', k_idempotency(id), string.format('%013.0f', NOW + IDEMPOTENT_MS) .. run, 'PX', IDEMPOTENT_MS * 2)
end

-- The run didn't come about: its key is free again.
local function free_key(id, run)
  if keyed_run(id) == run then redis.call('DEL', k_idempotency(id)) end
end
