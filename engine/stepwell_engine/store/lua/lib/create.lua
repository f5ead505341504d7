-- A run comes into being. Its id is a function of (event, app, function), so its hash is the idempotency key of creation.
--- include time, ready, run, gather
-- Queued runs are gathered by queue, other writes to keys that runs share by key, and made together: `enter` must be called at the end (and may
-- be before).
local QUEUES = {}

local function enter()
  local shown = {}
  for _, q in pairs(QUEUES) do
    for from = 1, #q.items, 1000 do
      redis.call('ZADD', k_starts(q.fn, q.key), unpack(q.items, from, math.min(from + 999, #q.items)))
    end
    if #q.items > 0 then
      local keys = shown[q.fn] or { lane = q.lane }
      shown[q.fn] = keys
      keys[#keys + 1] = q.key
      q.items = {}
    end
  end
  for fn, keys in pairs(shown) do show_all(fn, keys, keys.lane) end
  write_gathered()
end

local function queue_of(fn, key, lane)
  local name = fn .. ':' .. key
  local q = QUEUES[name]
  if not q then
    q = { fn = fn, key = key, lane = lane, items = {} }
    QUEUES[name] = q
  end
  return q
end

-- What the runs of a group share: function, lane, earliest start (ms, 0 = now), '1' to emit no internal events, parent, queue key.
local function group(fn, lane, start, noemit, parent, key)
  local later = tonumber(start) > NOW
  local extra = {}
  if noemit ~= '' then extra = { 'ne', '1' } end
  if parent ~= '' then extra[#extra + 1] = 'pa'; extra[#extra + 1] = parent end
  if key ~= '' then extra[#extra + 1] = 'k'; extra[#extra + 1] = key end
  return { q = queue_of(fn, key, lane), start = start, later = later, rs = later and 'd' or 'q', qa = later and start or NOW_S, extra = extra }
end

-- Whether none of the runs at ARGV[from], ARGV[from + 3], … exists: one question for all, since nearly always nothing was redelivered.
local function fresh(from, to)
  local hashes = {}
  for o = from, to, 3 do hashes[#hashes + 1] = k_run(ARGV[o]) end
  for i = 1, #hashes, 1000 do
    if redis.call('EXISTS', unpack(hashes, i, math.min(i + 999, #hashes))) > 0 then return false end
  end
  return true
end

-- `new`: known not to exist. `score`: its place in the queue where that is not its creation. `more`: further fields, flat.
local function create(g, run, blob, created, new, score, more)
  local hash, q = k_run(run), g.q
  if not new and redis.call('EXISTS', hash) == 1 then return 0 end
  score = score or created
  local extra = g.extra
  if more and #more > 0 then
    for _, value in ipairs(extra) do more[#more + 1] = value end
    extra = more
  end
  redis.call('HSET', hash, 'st', 'q', 'f', q.fn, 'a', q.lane, 't', score, 'e', blob, 'rs', g.rs, 'qa', g.qa, unpack(extra))
  zadd_later(k_fn_runs(q.fn), string.sub(created, 1, 13), run)
  if g.later then
    zadd_later(k_due(), g.start, run)
    wake(tonumber(g.start))
  else
    local n = #q.items
    q.items[n + 1] = score
    q.items[n + 2] = run
  end
  return 1
end
