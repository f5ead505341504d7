-- A run's hash. Statuses and the transitions between them (stepwell/records.py has the same table; `move` asserts it):
--   q queued → r running → c completed | f failed | k cancelled;  q, r → x cancelling → k;  q → k
-- Root states (rs): q in a queue · d in `due` · l leased · p parked (only a delivery or timer wakes it) · '' ended.
--- include time, ready, schedule
local LEGAL = {
  q = { q = true, r = true, x = true, k = true, f = true },
  r = { r = true, x = true, c = true, f = true, k = true },
  x = { x = true, k = true },
}

local function move(from, to)
  if not (LEGAL[from] and LEGAL[from][to]) then
    error('illegal transition ' .. tostring(from) .. ' -> ' .. tostring(to))
  end
  return to
end

local function ended(st)
  return st == 'c' or st == 'f' or st == 'k'
end

-- History is a bounded text log, one line a fact; when full its older half goes. The first lease has no line of its own: `sa`, `w` and
-- `qa` say the same as long as no line is there, and most runs never need one.
local function log(key, h, line)
  if not h then
    local f = redis.call('HMGET', key, 'sa', 'w', 'qa')
    h = f[1] and 'L' .. f[1] .. ' ' .. (f[2] or '') .. ' ' .. (f[3] or f[1]) .. '\n' or ''
  end
  h = h .. line .. '\n'
  if #h > 8192 then
    local cut = string.find(h, '\n', 4096, true)
    h = string.sub(h, cut + 1)
  end
  return h
end

local function tell(worker, message)
  if not worker or worker == '' then return end
  local list = k_control(worker)
  redis.call('RPUSH', list, message)
  redis.call('PEXPIRE', list, 3600000)
end

-- Something arrived for the run. A parked root is queued; a leased one hears of it through its worker, or at its suspend, which
-- compares `dv`; a queued one reads it when it is leased; one in `due` waits for its backoff.
local function wake_run(run)
  local f = redis.call('HMGET', k_run(run), 'rs', 'f', 'k', 'a', 't', 'w')
  if f[1] == 'p' then
    redis.call('HSET', k_run(run), 'rs', 'q', 'qa', NOW)
    enqueue(run, f[2], f[3] or '', f[4], true, f[5])
  elseif f[1] == 'l' then
    tell(f[6], 'r' .. run)
  end
end

-- Pending records (p:<step>): cmsgpack {kind, due, registered_us, head, name, prefix, path}.
--   z sleep · w wait · g signal · i invoke · r retry of an inline step · P planned step item
local function unindex(run, step, p)
  local kind = p[1]
  redis.call('ZREM', k_due(), run .. ':' .. step)
  if kind == 'w' then
    redis.call('ZREM', k_waits(p[5]), p[6] .. run .. ':' .. step)
    local paths = k_wait_paths(p[5])
    if redis.call('HINCRBY', paths, p[7], -1) <= 0 then redis.call('HDEL', paths, p[7]) end
  elseif kind == 'P' then
    local f = redis.call('HMGET', k_run(run), 'f', 'k', 'a')
    dequeue(run .. ':' .. step, f[1], f[2] or '', f[3])
  end
end

-- A step finished by something else than the run's own code: time, an event, a signal, a child. First write wins: the pending
-- record is the only ticket, and it is taken here. status: n nothing · v value · e error.
local function complete(run, step, p, status, value)
  unindex(run, step, p)
  local key = k_run(run)
  redis.call('HSET', key, 's:' .. step, 'x' .. cmsgpack.pack({ status, NOW, p[4], value }))
  redis.call('HDEL', key, 'p:' .. step)
  redis.call('HINCRBY', key, 'np', -1)
  redis.call('HINCRBY', key, 'dv', 1)
  wake_run(run)
end
