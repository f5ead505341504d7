-- A candidate becomes a run, unless its rate limit or its singleton key forbids: the last part of an admission, and of a window's close.
--- include create, cancel, limits/outcome, limits/idempotency, limits/rate_limit, limits/singleton, limits/cancel, limits/timeouts
local STARTED = {} -- function numbers of the runs that this script created
local REPLACED = 'a newer run of its singleton key began'

-- Returns 1, or 0 when no run begins. In either case the candidate is decided.
local function start(c)
  local flow, run = c.flow, c.run
  local lock = flow.sg
  local holder, newest
  if lock then holder, newest = lock_holder(lock[1]) end
  if flow.rl and over_rate(flow.rl) then return refuse(c, 'rate_limited', '') end
  if holder and lock[2] == 'skip' then return refuse(c, 'skipped', holder) end
  -- A window's run is asked for now, when it closes.
  local accepted = lock and lock[2] == 'cancel' and (c.window and NOW_US or flow.us)
  local fields = flow.f or {}
  local function put(name, value)
    local n = #fields
    fields[n + 1], fields[n + 2] = name, value
  end
  if flow.wn then put('wn', flow.wn) end
  if flow.lm then put('lm', flow.lm) end
  if lock then put('sg', lock[1]) end
  for i = 1, c.more and #c.more or 0, 2 do put(c.more[i], c.more[i + 1]) end
  local score = (c.window and NOW or tonumber(c.created)) - (flow.pr or 0)
  local g = c.group or group(c.fn, c.lane, c.start, c.noemit, c.parent, c.key)
  local looks = flow.cn and look_back(run, flow.cn, flow.us)
  if looks then
    put('hd', looks)
    if not g.later then
      -- One of its own: others of the group are not held.
      g = group(c.fn, c.lane, c.start, c.noemit, c.parent, c.key)
      g.later, g.rs, g.start = true, 'd', NOW + HELD_MS
    end
  end
  if flow.cn then register_cancels(run, flow.cn) end
  local latest = flow.to and flow.to > 0 and math.max(c.window and NOW or tonumber(c.created), tonumber(c.start)) + flow.to
  if latest then put('tl', digits(latest)) end
  create(g, run, c.blob, c.created, true, string.format('%.3f', score), fields)
  if latest then begin_start_timeout(run, latest) end
  if flow.lm then change_limits(c.fn, c.key, flow.lm) end
  if flow.rl then count_start(flow.rl, run) end
  local late = accepted and accepted < newest
  if lock and not late then take_lock(lock[1], run, accepted) end
  -- One that comes late ends as it would have had it come in time.
  local replaced = late and run or holder
  if replaced then
    -- Runs of this very call are not in their queues yet, and what is cancelled must be found there.
    enter()
    local f = redis.call('HMGET', k_run(replaced), unpack(CANCEL_FIELDS))
    local err = { code = 'run_cancelled', name = 'RunCancelledError', message = REPLACED, reason = 'singleton' }
    cancel_run(replaced, f, cmsgpack.pack(err), lock[3])
  end
  STARTED[#STARTED + 1] = c.fn
  return 1
end
