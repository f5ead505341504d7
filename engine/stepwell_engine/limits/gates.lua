-- Gates: what an item must pass to be leased. Its queue key says which (limits/keys.py), `fl:<fn>` what they allow now, or that events
-- say it (limit.lua).
-- Invariants:
-- * `cs:<id>` holds an item iff it is leased, or a suspect about to be; it holds a run iff the run has begun and not ended.
-- * A key with items is in rk:<fn>, or parked: in pk:<id> of the gate it found shut, and in pd:<fn> as `w<id>` (all of it) or `s<id>` (its
--   starts: then it is in rk:<fn> too while it has resumes).
-- * An open gate with parked keys has a key on its way: in rk:<fn>, whose visit lets the next one go (pass_on), or, of a throttle, its
--   moment in `due`. A slot that comes free lets one go; a key that goes without having used its chance passes it on. (Away from a
--   shared gate's home: see limits/concurrency.lua.)
-- * Shared gates have one order for all functions: those of runs (R) before those of steps (C), each by id. A key that waits for one keeps
--   the permits it has of earlier ones away from their home (keep_earlier), until its next visit or until its items are gone; of later
--   ones it keeps none. So who is waited for waits for later ones only: no deadlock. (A run that holds an R waits for a C.) And a permit
--   goes back unused only when an earlier gate is found shut: keys can't take each other's places in turns for ever.
-- * Virtual time: `vt` of `fl:<fn>` is the turn of the key served last. Nobody gets a turn before it, and no key loses one after it.
--- include turns, schedule, limits/throttle, limits/concurrency, limits/limit
local FLOWS, GATES, PARKED = {}, {}, {}

local function flow_of(fn)
  local flow = FLOWS[fn]
  if not flow then
    local v = redis.call('HMGET', k_flow(fn), 'a', '0', '1', 't', 'b', 'n', 'c', 'vt')
    flow = { lane = v[1] or '', ['0'] = tonumber(v[2]), ['1'] = tonumber(v[3]), ['-'] = tonumber(v[4]), burst = tonumber(v[5]) }
    flow.by = { ['0'] = by_event(v[2]), ['1'] = by_event(v[3]), ['-'] = by_event(v[4]) }
    flow.shards, flow.since, flow.time = tonumber(v[6] or 1), tonumber(v[7] or 0), tonumber(v[8] or 0)
    FLOWS[fn] = flow
  end
  return flow
end

-- Whether keys of the function may be parked: mostly none are, and one look tells it for a whole script.
local function any_parked(fn)
  if PARKED[fn] == nil then PARKED[fn] = redis.call('EXISTS', k_parks(fn)) == 1 end
  return PARKED[fn]
end

-- limit nil = open · starts: only starts pass it · slots: it has holders, `run`: the run instead of the item · interval: a throttle ·
-- by: an event gives the limit, `kept` is what it gave.
local function gate_of(fn, key, kind, place, id)
  local flow = flow_of(fn)
  local by = kind ~= 's' and flow.by[place] or nil
  local kept = by and kept_limit(id, fn, key)
  local limit = flow[place]
  if kind == 't' then
    if by then limit = kept and math.ceil(by.period / kept.limit) or by.last or by.period end
    return { id = id, starts = true, limit = limit, interval = limit, burst = flow.burst, by = by, kept = kept }
  end
  if by then limit = kept and kept.limit or by.last or 1 end
  if kind == 's' then limit = 1 elseif limit == 0 then limit = nil end
  local run = kind == 'r' or kind == 'R' or kind == 's'
  local gate = { id = id, starts = run, run = run, slots = true, limit = limit, by = by, kept = kept, home = HERE }
  if kind == 'C' or kind == 'R' then
    gate.shared, gate.since = true, math.max(flow.since, kept and kept.mark or 0)
    gate.home = home_of(id, flow.shards)
  end
  return gate
end

-- By bytes: `<` of strings goes by the server's locale.
local function precedes(one, other)
  for i = 1, #one do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return false
end

local function gates_of(fn, key)
  local name = fn .. ':' .. key
  local gates = GATES[name]
  if gates then return gates end
  gates = { weight = 1 }
  local shared = {}
  for text in string.gmatch(key, '[^,]+') do
    local kind = string.sub(text, 1, 1)
    if kind == 'w' then
      gates.weight = tonumber(string.sub(text, 2))
    else
      local gate = gate_of(fn, key, kind, string.sub(text, 2, 2), string.sub(text, 3))
      gates.starts = gates.starts or gate.starts
      local list = gate.shared and shared or gates
      list[#list + 1] = gate
    end
  end
  -- A permit of another shard is asked for last, when it can be used at once.
  if #shared > 1 then table.sort(shared, function(one, other) return precedes(one.id, other.id) end) end
  for _, gate in ipairs(shared) do
    gates[#gates + 1] = gate
    gates.keeps = gates.keeps or #shared > 1 and gate.home ~= HERE
  end
  GATES[name] = gates
  return gates
end

local function free(gate)
  if not gate.limit then return math.huge end
  if gate.interval then return (tokens(gate)) end
  return room_of(gate)
end

-- How many more may pass: of all items (starts false), or further of starts. Returns it, and the gate that is shut.
local function capacity(gates, want, starts)
  for _, gate in ipairs(gates) do
    if gate.starts == starts then
      local n = free(gate)
      if n <= 0 then return 0, gate end
      if n < want then want = n end
    end
  end
  return want
end

-- An item passes: it takes its slot, and as a start that of its run and a token.
local function pass(gates, item, run, start)
  for _, gate in ipairs(gates) do
    if gate.slots and not gate.run then
      take_slot(gate, item)
    elseif start and gate.run then
      take_slot(gate, run)
    elseif start and gate.limit then
      take_token(gate)
    end
  end
end

local function split_member(member)
  local colon = string.find(member, ':', 1, true)
  return string.sub(member, 1, colon - 1), string.sub(member, colon + 1)
end

-- The key keeps a permit of each gate before `shut` in the order of shared gates. For one of its own function it keeps nobody waiting.
local function keep_earlier(fn, key, gates, shut)
  if not gates.keeps or not shut.shared then return end
  local passed, starts = false, shut.run or redis.call('EXISTS', k_starts(fn, key)) == 1
  for _, gate in ipairs(gates) do
    passed = passed or gate.id == shut.id
    local earlier = gate.run and not shut.run and starts or gate.run == shut.run and not passed
    if earlier and gate.shared and gate.home ~= HERE and gate.limit and room_of(gate) > 0 then
      redis.call('ZADD', k_kept(gate.id), NOW, fn .. ':' .. key)
    end
  end
end

-- What the key kept is spare again: for itself, or for pass_on. `runs`: only of gates of runs. Whether there was any.
local function keep_none(fn, key, gates, runs)
  if not gates.keeps then return false end
  local found = 0
  for _, gate in ipairs(gates) do
    if gate.shared and (gate.run or not runs) then found = found + redis.call('ZREM', k_kept(gate.id), fn .. ':' .. key) end
  end
  return found > 0
end

local function unpark(fn, key)
  local state = redis.call('HGET', k_parks(fn), key)
  if not state then return end
  redis.call('HDEL', k_parks(fn), key)
  redis.call('ZREM', k_parked(string.sub(state, 2)), fn .. ':' .. key)
end

-- The key can't go on before `gate` opens. mode: w all of it, s its starts.
local function park(fn, key, gate, mode)
  unpark(fn, key)
  -- By its turn among the keys of one function. Turns of several functions can't be compared: a shared gate has a line in order of coming.
  local score = gate.shared and NOW_US or redis.call('ZSCORE', k_ready_keys(fn), key) or 0
  redis.call('ZADD', k_parked(gate.id), score, fn .. ':' .. key)
  redis.call('HSET', k_parks(fn), key, mode .. gate.id)
  PARKED[fn] = true
  keep_earlier(fn, key, gates_of(fn, key), gate)
  if gate.interval then
    local _, from = tokens(gate)
    schedule('*' .. gate.id, from)
  end
end

-- A parked key may try again. It keeps its turn, but no claim on turns that passed while it could not use them.
local function try_again(fn, key, score)
  local keys, flow = k_ready_keys(fn), flow_of(fn)
  if not redis.call('ZSCORE', keys, key) then
    redis.call('ZADD', keys, score > 1e15 and flow.time or math.max(score, flow.time), key)
  end
  join(k_ready_fns(flow.lane), { fn })
  ring(flow.lane)
end

function open_next(id)
  local head = redis.call('ZRANGE', k_parked(id), 0, 0, 'WITHSCORES')
  local member = head[1]
  if not member then return end
  local fn, key = split_member(member)
  unpark(fn, key)
  try_again(fn, key, tonumber(head[2]))
end

local function gate_named(id, fn, key)
  for _, gate in ipairs(gates_of(fn, key)) do
    if gate.id == id then return gate end
  end
end

-- The key was visited, and its starts wait where they did.
local function keep_on(fn, key, gates)
  local state = gates.keeps and redis.call('HGET', k_parks(fn), key)
  if state and string.sub(state, 1, 1) == 's' then keep_earlier(fn, key, gates, gate_named(string.sub(state, 2), fn, key)) end
end

-- At home: other shards are granted permits, up to the first key of this one that may try again. Functions may give a shared gate
-- different limits: who can't go on under his does not keep others from it (of the first in line; it is all the same if they agree).
function open_shared(id)
  local held = redis.call('ZCARD', k_slots(id))
  for _, member in ipairs(redis.call('ZRANGE', k_parked(id), 0, 31)) do
    if string.sub(member, 1, 1) == '@' then
      local word = redis.call('HGET', k_asks(id), string.sub(member, 2))
      if held < tonumber(string.match(word, '%d+$')) then
        grant(id, member, word)
        held = held + 1
      end
    else
      local fn, key = split_member(member)
      local limit = gate_named(id, fn, key).limit
      if not limit or held < limit then
        unpark(fn, key)
        return try_again(fn, key, 0)
      end
    end
  end
end

-- A key was visited, or is gone: what is still open of its gates is the next one's chance.
local function pass_on(gates, fn)
  for _, gate in ipairs(gates) do
    if gate.slots and gate.home ~= HERE then
      settle(gate)
    elseif (gate.limit or gate.by) and (gate.shared or any_parked(fn)) and redis.call('EXISTS', k_parked(gate.id)) == 1 then
      if gate.shared then
        open_shared(gate.id)
      elseif gate.interval then
        local n, from = tokens(gate)
        if n > 0 then
          open_next(gate.id)
        elseif not redis.call('ZSCORE', k_due(), '*' .. gate.id) then
          schedule('*' .. gate.id, from)
        end
      elseif free(gate) > 0 then
        open_next(gate.id)
      end
    end
  end
end

-- An event gives a gate another limit: those who wait may go on, or sooner. (Under a lower one who holds a slot keeps it.)
local function change_limit(fn, key, id, us, limit)
  local was = gate_named(id, fn, key)
  local kept = was.kept
  -- A deploy may have made it a number meanwhile.
  if not was.by or (kept and kept.us > us) then return end
  local same = kept and kept.limit == limit
  keep_limit(id, us, limit, same and kept.mark or mark_now())
  if same then
    kept.us = us
    return
  end
  GATES = {}
  local gate = gate_named(id, fn, key)
  if gate.interval then
    stretch(was, gate)
    if redis.call('EXISTS', k_parked(id)) == 0 then return end
    local _, from = tokens(gate)
    schedule('*' .. id, from)
  elseif gate.home ~= HERE then
    settle(gate, true)
  else
    pass_on({ gate }, fn)
  end
end

local function change_limits(fn, key, lm)
  local us = tonumber(string.match(lm, '^%d+'))
  for id, limit in string.gmatch(lm, ' ([^= ]+)=(%d+)') do change_limit(fn, key, id, us, tonumber(limit)) end
end

-- The item's lease is over: its slots are free.
local function vacate(item, fn, key)
  for _, gate in ipairs(gates_of(fn, key)) do
    if gate.slots and not gate.run then leave_slot(gate, item, any_parked(fn)) end
  end
end

-- The same for one of many items: gathered (lib/gather.lua) where nobody waits for what they leave.
local function vacate_later(item, fn, key)
  if any_parked(fn) then return vacate(item, fn, key) end
  for gate in string.gmatch(key, '[^,]+') do
    local kind = string.sub(gate, 1, 1)
    if kind == 'C' then return vacate(item, fn, key) end
    if kind == 'c' then zrem_later(k_slots(string.sub(gate, 3)), item) end
  end
end

-- The run is over.
local function vacate_run(run, fn, key)
  for _, gate in ipairs(gates_of(fn, key)) do
    if gate.run then leave_slot(gate, run, any_parked(fn)) end
  end
end

-- A throttle's moment: as many keys go on as it admits; if others stay, it has another moment.
local function throttle_due(id)
  local member = redis.call('ZRANGE', k_parked(id), 0, 0)[1]
  if not member then return end
  local throttle = gate_named(id, split_member(member))
  -- A throttle that is gone holds nobody.
  local n = throttle.limit and math.min(tokens(throttle), 1000) or 1000
  for _ = 1, n do open_next(id) end
  if redis.call('EXISTS', k_parked(id)) == 0 then return end
  local from = NOW
  if throttle.limit then
    local _, later = tokens(throttle, n)
    from = math.max(later, NOW)
  end
  schedule('*' .. id, from)
end
