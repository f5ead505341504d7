-- Queues of a lane (an app): items wait in per-key sorted sets; two indexes by virtual time give turns to functions, then to keys.
-- Invariant: a key with items is in rk:<fn>, and its function in rf:<lane>.

-- One ring at most waits in a bell: whoever takes it and leaves work behind rings again (lease.lua), so a burst wakes a chain of
-- idle workers and a busy system pays nothing.
local RUNG = {}
local function ring(lane)
  if RUNG[lane] then return end
  RUNG[lane] = true
  local bell = k_bell(lane)
  if redis.call('LLEN', bell) == 0 then redis.call('RPUSH', bell, '1') end
end

-- A newcomer's tag is one turn after the head's: ahead of nobody already waiting for longer, and never behind a hot key's tail.
local function join(index, member)
  if redis.call('ZSCORE', index, member) then return end
  local head = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  redis.call('ZADD', index, head[2] and head[2] + 1 or 0, member)
end

local READY = {}
local function enqueue(item, fn, key, lane, resume, score)
  redis.call('ZADD', resume and k_resumes(fn, key) or k_starts(fn, key), score, item)
  local id = fn .. ':' .. key
  if not READY[id] then
    READY[id] = true
    join(k_ready_keys(fn), key)
    join(k_ready_fns(lane), fn)
  end
  ring(lane)
end

-- Out of wherever the item waits; indexes left empty go too. lease.lua would find them so, but only if somebody leases again.
local function dequeue(item, fn, key, lane)
  redis.call('ZREM', k_suspects(lane), item)
  local resumes, starts = k_resumes(fn, key), k_starts(fn, key)
  if redis.call('ZREM', resumes, item) + redis.call('ZREM', starts, item) == 0 then return end
  if redis.call('EXISTS', resumes, starts) == 0 then
    READY[fn .. ':' .. key] = nil
    redis.call('ZREM', k_ready_keys(fn), key)
    if redis.call('EXISTS', k_ready_keys(fn)) == 0 then redis.call('ZREM', k_ready_fns(lane), fn) end
  end
end
