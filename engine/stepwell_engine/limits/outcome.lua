-- What an event came to for a function, when it is decided here: `oc:<event>`; or `oc:<run>`, of a run that others know by its id but that
-- will not be (its event is in another's window, or refused), or not yet (`open <id>`: the window gathers events for it).
-- Its presence makes the decision once: a redelivered event finds its outcome, or its run.
-- A candidate `c` is a run that may come into being: { fn, lane, start, noemit, parent, key, run, blob, created, flow, ts, event },
-- `parent` is a list joined by spaces, `event` the id its blob begins with. A window's has `window`, and `more` fields for the run.
--- include finish
local OUTCOME_MS = 176400000 -- an event's record lives for 48 h; an hour more, so that it never outlives its outcomes

local WHY = {
  rate_limited = 'the rate limit of the function is reached',
  duplicate = 'a run of its idempotency key began within 24 hours',
  skipped = 'another run of its singleton key has not ended',
  debounced = 'a later event took its place in the debounce',
  cancelled = 'its run was cancelled before it began',
}

local function decided(c)
  return redis.call('EXISTS', k_run(c.run)) == 1 or redis.call('HEXISTS', k_outcome(c.event), c.fn) == 1
end

local function note(id, fn, text)
  redis.call('HSET', k_outcome(id), fn, text)
  redis.call('PEXPIRE', k_outcome(id), OUTCOME_MS)
end

-- Invokes whose event starts no run hear of it as of a failed child.
local function disappoint(parents, reason)
  if parents == '' then return end
  resolve_parents(parents, 'e', cmsgpack.pack({
    code = 'run_not_started', name = 'RunNotStartedError', message = 'the function was not started: ' .. WHY[reason],
  }))
end

-- Nor will the run be that others know by its id: clients that wait for it are told, and read the outcome.
local function turn_away(run, fn, parents, outcome, reason)
  disappoint(parents, reason)
  note(run, fn, outcome)
  tell_watchers(run)
end

-- No run begins. `other`: the run in whose favour, or ''.
local function refuse(c, reason, other)
  local outcome = other == '' and reason or reason .. ' ' .. other
  if not c.window then note(c.event, c.fn, outcome) end
  if c.window or c.flow.v then turn_away(c.run, c.fn, c.parent, outcome, reason) end
  -- The outcome of an event that tells of one like this is told to nobody: it would never end.
  if not c.flow.q then
    redis.call('XADD', k_events(), '*', 'k', 's', 'i', '', 'n', 'inngest/function.skipped', 't', digits(NOW_US), 'd', c.blob,
      'x', cmsgpack.pack({ c.run, c.fn, reason, other }))
  end
  return 0
end
