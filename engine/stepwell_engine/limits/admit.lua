-- Which of the runs asked for come into being, in order: idempotency → debounce | batch (the rest when their window closes) →
-- rate limit → singleton → run. A decision is made once for an event and function: it leaves the event's run, or its outcome in
-- `oc:<event>`. flow is '' for a plain run, else a cmsgpack map:
--   id idempotency key · db {id, period, timeout, collect} · bt {id, max_size, timeout} · rl {id, limit, period} · sg {id, mode, grace}
--   ts the event's time, ms · us when it was accepted, where that counts · pr ms by which its runs go ahead · to ms in which they must begin
--   cn registrations (limits/cancel.lua) · wn, lm and, flat, f fields of the run
--   v '1' for an invoke · q '1': its skip is told to nobody
--- include limits/debounce, limits/batch
local function admit(c)
  if decided(c) then return end
  local flow = c.flow
  local other = flow.id and keyed_run(flow.id)
  if other then return refuse(c, 'duplicate', other) end
  if flow.db then return debounce(c) end
  if flow.bt then return batch(c) end
  if start(c) == 1 and flow.id then hold_key(flow.id, c.run) end
end

-- Asks for all candidates from ARGV[at] together whether they are decided and whose their idempotency keys are. Returns what each asks for,
-- by its place.
local function look_ahead_of(at)
  local flows, traces, ids = {}, {}, {}
  while ARGV[at] do
    local last = at + 3 + tonumber(ARGV[at + 6]) * 4
    for o = at + 7, last, 4 do
      if ARGV[o + 3] ~= '' then
        local flow = cmsgpack.unpack(ARGV[o + 3])
        local n = #traces
        traces[n + 1], traces[n + 2] = k_run(ARGV[o]), k_outcome(string.sub(ARGV[o + 1], 1, 26))
        flows[o], ids[#ids + 1] = flow, flow.id
      end
    end
    at = last + 4
  end
  look_ahead(traces)
  look_up_keys(ids)
  return flows
end

-- ARGV from `at`: [fn lane start noemit parent key count [run blob created flow]...]...; `enter` must be called afterwards.
local function admit_all(at)
  local flows = look_ahead_of(at)
  while ARGV[at] do
    local fn, lane, from, noemit, parent, key = unpack(ARGV, at, at + 5)
    local g = group(fn, lane, from, noemit, parent, key)
    -- One candidate after the other: none is kept.
    local c = { fn = fn, lane = lane, start = from, noemit = noemit, parent = parent, key = key, group = g }
    local n = tonumber(ARGV[at + 6])
    for o = at + 7, at + 3 + n * 4, 4 do
      c.run, c.blob, c.created = unpack(ARGV, o, o + 2)
      c.flow = flows[o]
      if c.flow then
        c.ts, c.event = c.flow.ts, string.sub(c.blob, 1, 26)
        admit(c)
      elseif create(g, c.run, c.blob, c.created) == 1 then
        STARTED[#STARTED + 1] = fn
      end
    end
    at = at + 7 + n * 4
  end
end
