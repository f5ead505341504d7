-- What an event came to for a function, when it is decided here: `oc:<event>`; or `oc:<run>`, of a run that others know by its id but that
-- will not be (its event is in another's window, or refused), or not yet (`open <id>`: the window gathers events for it; `open <id> <run>`:
-- an invoke whose event stands in that window, as long as none replaces it).
-- Its presence makes the decision once: a redelivered event finds its outcome, or its run.
-- A candidate `c` is a run that may come into being: { fn, lane, start, noemit, parent, key, run, blob, created, flow, ts, event },
-- `parent` is a list joined by spaces, `event` the id its blob begins with. A window's has `window`, `more` fields for the run, and `others`,
-- the events that it has besides; with `last` they come before it.
--- include finish
local OUTCOME_MS = 176400000 -- an event's record lives for 48 h; an hour more, so that it never outlives its outcomes

local WHY = {
  rate_limited = 'the rate limit of the function is reached',
  duplicate = 'a run of its idempotency key began within 24 hours',
  skipped = 'another run of its singleton key has not ended',
  debounced = 'a later event took its place in the debounce',
  cancelled = 'its run was cancelled before it began',
}

-- Of nearly every batch no run and no outcome is there yet: one question for all.
local FRESH, ASKED = false, {}
local function look_ahead(keys)
  FRESH = true
  for from = 1, #keys, 1000 do
    FRESH = FRESH and redis.call('EXISTS', unpack(keys, from, math.min(from + 999, #keys))) == 0
  end
end

local function decided(c)
  -- What this call decides itself it asks for again.
  if FRESH and not ASKED[c.run] then
    ASKED[c.run] = true
    return false
  end
  return redis.call('EXISTS', k_run(c.run)) == 1 or redis.call('HEXISTS', k_outcome(c.event), c.fn) == 1
end

-- `longer`: ms by which it outlives the outcome of an event that no window gathers.
local function note(id, fn, text, longer)
  local key = k_outcome(id)
  local ms = OUTCOME_MS + tonumber(longer or 0)
  redis.call('HSET', key, fn, text)
  -- Another function's outcome of the same event may have to live longer.
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end

-- Invokes whose event starts no run hear of it as of a failed child.
local function disappoint(parents, reason)
  if parents == '' then return end
  resolve_parents(parents, 'e', cmsgpack.pack({
    code = 'run_not_started', name = 'RunNotStartedError', message = 'the function was not started: ' .. WHY[reason],
  }))
end

-- Nor will the run be that others know by its id: clients that wait for it are told, and read the outcome.
local function turn_away(run, fn, parents, outcome, reason, longer)
  disappoint(parents, reason)
  note(run, fn, outcome, longer)
  tell_watchers(run)
end

-- No run begins. `other`: the run in whose favour, or ''.
local function refuse(c, reason, other)
  local outcome = other == '' and reason or reason .. ' ' .. other
  if not c.window then note(c.event, c.fn, outcome) end
  if c.window or c.flow.v then turn_away(c.run, c.fn, c.parent, outcome, reason, c.window and c.window.hz) end
  -- The outcome of an event that tells of one like this is told to nobody: it would never end.
  if not c.flow.q then
    redis.call('XADD', k_events(), '*', 'k', 's', 'i', '', 'n', 'inngest/function.skipped', 't', digits(NOW_US), 'd', c.blob,
      'x', cmsgpack.pack({ c.run, c.fn, reason, other, c.others or {}, c.last and '1' or '' }))
  end
  return 0
end
