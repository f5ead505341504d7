-- Queues of a lane (an app): items wait in per-key sorted sets; two indexes by virtual time give turns to functions, then to keys.
-- Invariant: a key with items is in rk:<fn>, and its function in rf:<lane>; or it is parked at a gate it can't pass (limits/gates.lua).
--- include turns, limits/gates
local READY = {}

-- A key has items now. One that is parked comes back when its gate opens; its resumes may pass where only starts can't.
local function show(fn, key, lane, resume)
  if key ~= '' and any_parked(fn) then
    local state = redis.call('HGET', k_parks(fn), key)
    if state and not (resume and string.sub(state, 1, 1) == 's') then return end
  end
  join(k_ready_keys(fn), key, key ~= '' and flow_of(fn).time)
  join(k_ready_fns(lane), fn)
  ring(lane)
end

local function enqueue(item, fn, key, lane, resume, score)
  redis.call('ZADD', resume and k_resumes(fn, key) or k_starts(fn, key), score, item)
  local id = fn .. ':' .. key
  if READY[id] and key == '' then return ring(lane) end
  READY[id] = true
  show(fn, key, lane, resume)
end

-- Out of wherever the item waits; indexes left empty go too. lease.lua would find them so, but only if somebody leases again.
local function dequeue(item, fn, key, lane)
  if redis.call('ZREM', k_suspects(lane), item) == 1 and key ~= '' then vacate(item, fn, key) end
  local resumes, starts = k_resumes(fn, key), k_starts(fn, key)
  if redis.call('ZREM', resumes, item) + redis.call('ZREM', starts, item) == 0 then return end
  if redis.call('EXISTS', resumes, starts) == 0 then
    READY[fn .. ':' .. key] = nil
    redis.call('ZREM', k_ready_keys(fn), key)
    if key ~= '' then
      local gates = gates_of(fn, key)
      unpark(fn, key)
      keep_none(fn, key, gates)
      pass_on(gates, fn)
    end
    if redis.call('EXISTS', k_ready_keys(fn)) == 0 then redis.call('ZREM', k_ready_fns(lane), fn) end
  elseif key ~= '' and redis.call('EXISTS', starts) == 0 then
    local gates, waited = gates_of(fn, key), string.sub(redis.call('HGET', k_parks(fn), key) or '', 1, 1) == 's'
    if waited then unpark(fn, key) end
    if keep_none(fn, key, gates, true) or waited then pass_on(gates, fn) end
  end
end
