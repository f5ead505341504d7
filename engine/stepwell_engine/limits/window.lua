-- Windows gather events that become one run: a debounce (the last of them, or with collect all), a batch (all). `win:<id>` is the
-- window, `wev:<id>` its events where all count, and `~<fn>:<id>` in `due` its end: they come and go together, in one write.
-- The window's run has the id that its first event would have started, so every event's outcome can name it at once. If that was an invoke
-- it has an id beside: the invoke's own stands for the invoke alone, who may be replaced or give up.
-- In it `iv` is the own id of the invoke whose event stands where only the last counts, `hz` how long after an event it may end, ms: what
-- became of the event is kept so much longer.
--- include limits/start
local GATHERED = 10485760 -- bytes of events in one run
local LEAST_LEFT = 3600000
local LONGEST = 604800000 -- an end that is put off for longer finds some of its events' records gone
local FIELDS = { 'r', 'f', 'a', 'k', 'ne', 'pa', 's', 'c', 'fl', 'o', 'due', 'n', 'z', 'ts', 'all', 'ik', 'iv', 'hz', 'us', 'ev' }

local function accepted(c)
  return c.flow.us or tonumber(c.created) * 1000
end

-- Everything a run will need is in the window: whoever closes it has no event at hand.
local function describe(c)
  return 'f', c.fn, 'a', c.lane, 'k', c.key, 'ne', c.noemit, 'fl', cmsgpack.pack(c.flow), 'ts', c.ts, 'us', accepted(c), 'ev', c.event
end

-- Whether it is the last event, in the order of `in_order`: it may be handled before one that another shard accepted earlier.
local function newest(c, w)
  local ts = tonumber(w.ts)
  if c.ts ~= ts then return c.ts > ts end
  if string.sub(c.event, 11, 22) == string.sub(w.ev, 11, 22) then return string.sub(c.event, 23) >= string.sub(w.ev, 23) end
  return accepted(c) >= tonumber(w.us)
end

-- Rows `<ts><us><blob>` in order: by time where the last one speaks for all (collect, else `ts` is 0), then as they were accepted. Those of
-- one send keep its order, whatever shards they came by: their ids differ in the last four characters.
local function in_order(rows)
  local sent, keys = {}, {}
  for _, row in ipairs(rows) do
    local send, us = string.sub(row, 43, 54), string.sub(row, 17, 32)
    if not sent[send] or us < sent[send] then sent[send] = us end
  end
  for i, row in ipairs(rows) do
    local send = string.sub(row, 43, 54)
    keys[i] = { string.sub(row, 1, 16) .. sent[send] .. send .. string.sub(row, 55, 58), i, string.sub(row, 33) }
  end
  table.sort(keys, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  for i, key in ipairs(keys) do rows[i] = key[3] end
  return rows
end

-- `err`: its run is cancelled in the same write. What else would start with it does not: it takes no place from others.
local function close_window(w, err)
  local more, others, blob = {}, {}, nil
  local last = w.all == 'c'
  if w.all == '' then
    blob = redis.call('HGET', k_window(w.id), 'e')
  else
    others = in_order(redis.call('LRANGE', k_gathered(w.id), 0, -1))
    blob = table.remove(others, last and #others or 1)
    if #others > 0 then more = { 'eb', cmsgpack.pack(others) } end
    -- The trigger event is the last of them, not the first.
    if last then more[#more + 1] = 'el'; more[#more + 1] = '1' end
  end
  redis.call('ZREM', k_due(), '~' .. w.f .. ':' .. w.id)
  redis.call('DEL', k_window(w.id), k_gathered(w.id))
  redis.call('HDEL', k_outcome(w.r), w.f)
  if w.iv ~= '' then
    note(w.iv, w.f, 'debounced ' .. w.r)
    tell_watchers(w.iv)
  end
  -- The run was cancelled before it began, by somebody who did not find its outcome.
  if redis.call('EXISTS', k_run(w.r)) == 1 then return turn_away(w.r, w.f, w.pa, 'cancelled', 'cancelled', w.hz) end
  local flow = cmsgpack.unpack(w.fl)
  local c = {
    fn = w.f, lane = w.a, key = w.k, noemit = w.ne, parent = w.pa, start = w.s, run = w.r, created = w.c,
    flow = err and { wn = flow.wn } or flow, blob = blob, more = more, window = w, others = others, last = last,
  }
  if start(c) == 0 then
    for id in string.gmatch(w.ik, '%S+') do free_key(id, w.r) end
  elseif err then
    enter() -- what is cancelled must be found in its queue
    cancel_run(w.r, redis.call('HMGET', k_run(w.r), unpack(CANCEL_FIELDS)), err, 0)
  end
end

local function read_window(id)
  local v = redis.call('HMGET', k_window(id), unpack(FIELDS))
  if not v[1] then return end
  local w = {}
  for i, name in ipairs(FIELDS) do w[name] = v[i] end
  w.id = id
  return w
end

-- The window that takes the event, open since just now if need be. `all`: '' only one event counts · 'b' all, as they were accepted · 'c' all, by
-- time. `most` events it may have. `horizon`: how long after an event it may end. A window is over at its time, not when somebody comes to
-- close it; an open one goes on as it was opened, whatever a deploy made of its function.
local function window_for(c, id, all, most, horizon)
  local w = read_window(id)
  horizon = math.min(horizon, LONGEST)
  if w and (tonumber(w.due) <= NOW or w.all ~= '' and (tonumber(w.n) >= most or tonumber(w.z) + #c.blob > GATHERED)
    or redis.call('EXISTS', k_run(w.r)) == 1) then
    close_window(w)
    w = nil
  end
  if w then
    if horizon > tonumber(w.hz) then
      w.hz = horizon
      redis.call('HSET', k_window(id), 'hz', horizon)
    end
    return w, false
  end
  local run = c.run
  if c.flow.v then run = string.sub(run, 1, 10) .. string.reverse(string.sub(run, 11, 24)) .. string.sub(run, 25) end
  note(run, c.fn, 'open ' .. id)
  w = {
    r = run, f = c.fn, a = c.lane, k = c.key, ne = c.noemit, pa = '', s = c.start, c = c.created, fl = cmsgpack.pack(c.flow),
    o = NOW_S, due = NOW_S, n = 0, z = 0, ts = c.ts, all = all, id = id, ik = '', iv = '', hz = horizon,
  }
  redis.call('HSET', k_window(id), 'r', run, 's', c.start, 'c', c.created, 'o', NOW_S, 'pa', '', 'all', all, 'ik', '', 'iv', '',
    'hz', horizon, describe(c))
  return w, true
end

-- The event is in the window: told as its outcome, and counted.
local function enter_window(c, w, word, due)
  local key = k_window(w.id)
  w.due, w.n, w.z = due, tonumber(w.n) + 1, tonumber(w.z) + #c.blob
  redis.call('HSET', key, 'due', string.format('%.0f', due), 'n', w.n, 'z', w.z)
  -- What says that it is open lives as long as it may be.
  if due - w.o > OUTCOME_MS - LEAST_LEFT then
    redis.call('PEXPIRE', k_outcome(w.r), due - NOW + OUTCOME_MS)
    if w.iv ~= '' then redis.call('PEXPIRE', k_outcome(w.iv), due - NOW + OUTCOME_MS) end
  end
  if c.flow.id then
    w.ik = w.ik .. ' ' .. c.flow.id
    redis.call('HSET', key, 'ik', w.ik)
    hold_key(c.flow.id, w.r)
  end
  note(c.event, c.fn, word .. ' ' .. w.r, w.hz)
end

-- All events count: this one is put with the others, its invoke waits for the run of all.
local function gather(c, w, word)
  redis.call('RPUSH', k_gathered(w.id),
    string.format('%016.0f%016.0f', w.all == 'c' and c.ts or 0, accepted(c)) .. c.blob)
  if c.parent ~= '' then w.pa = w.pa == '' and c.parent or w.pa .. ' ' .. c.parent end
  -- A run begins no earlier than any of its events says.
  w.s = string.format('%.0f', math.max(tonumber(w.s), tonumber(c.start)))
  redis.call('HSET', k_window(w.id), 'pa', w.pa, 's', w.s)
  if c.flow.v then
    note(c.run, c.fn, word .. ' ' .. w.r, w.hz)
    tell_watchers(c.run)
  end
end

-- Only one event counts, and it is another's now: who invoked with this one hears of it. `run`: the invoke's own.
local function replace(w, run, parents)
  if run ~= '' then
    turn_away(run, w.f, parents, 'replaced ' .. w.r, 'debounced', w.hz)
  else
    disappoint(parents, 'debounced')
  end
end

-- Only one event counts: this one, from now on.
local function stand(c, w)
  replace(w, w.iv, w.pa)
  w.pa, w.s, w.iv = c.parent, c.start, c.flow.v and c.run or ''
  redis.call('HSET', k_window(w.id), 'e', c.blob, 'pa', w.pa, 's', w.s, 'iv', w.iv)
  if w.iv ~= '' then note(w.iv, w.f, 'open ' .. w.id .. ' ' .. w.r) end
end

-- A window whose time has come, by its item in `due`.
local function window_due(item)
  local w = read_window(string.match(item, '^~[^:]*:(.*)$'))
  if w then close_window(w) else redis.call('ZREM', k_due(), item) end
end

-- The run of an open window is cancelled. `text` is its outcome; nil unless that says so.
local function cancel_window(text, err)
  local w = read_window(string.match(text, '^open (%S+)$') or '')
  if not w then return end
  close_window(w, err)
  return 'k'
end

-- Whoever invoked with `event` wants it no more. `run`: the invoke's own. What has other events too goes on without this one, or, having
-- begun, with it; else it is cancelled. Returns its status, '' where it goes on, nil when no window took the event.
local function give_up(run, fn, event, err, grace, children)
  local taken = redis.call('HGET', k_outcome(event), fn)
  local word, r = string.match(taken or '', '^(%a+) (%S+)$')
  if word ~= 'batched' and word ~= 'debounced' then return end
  local f = redis.call('HMGET', k_run(r), unpack(CANCEL_FIELDS))
  if f[1] then
    local e = redis.call('HMGET', k_run(r), 'e', 'eb')
    if e[2] or string.sub(e[1], 1, 26) ~= event then return '' end
    if children then cancel_children(r) end
    return cancel_run(r, f, err, grace)
  end
  local text = redis.call('HGET', k_outcome(r), fn) or ''
  local w = read_window(string.match(text, '^open (%S+)') or '')
  if not w then return '' end
  if w.all == '' then
    local e = redis.call('HGET', k_window(w.id), 'e')
    return string.sub(e, 1, 26) == event and cancel_window(text, err) or ''
  end
  local rows = redis.call('LRANGE', k_gathered(w.id), 0, -1)
  for _, row in ipairs(rows) do
    if string.sub(row, 33, 58) == event then
      if #rows == 1 then return cancel_window(text, err) end
      redis.call('LREM', k_gathered(w.id), 1, row)
      redis.call('HSET', k_window(w.id), 'n', w.n - 1, 'z', w.z - (#row - 32))
      note(event, fn, 'cancelled', w.hz)
      note(run, fn, 'cancelled', w.hz)
      return 'k'
    end
  end
  return ''
end
