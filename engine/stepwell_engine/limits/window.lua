-- Windows gather events that become one run: a debounce (the last of them, or with collect all), a batch (all). `win:<id>` is the
-- window, `wev:<id>` its events where all count, and `~<fn>:<id>` in `due` its end: they come and go together, in one write.
-- The window's run has the id that its first event would have started, so every event's outcome can name it at once.
--- include limits/start
local GATHERED = 10485760 -- bytes of events in one run
local LEAST_LEFT = 3600000
local FIELDS = { 'r', 'f', 'a', 'k', 'ne', 'pa', 's', 'c', 'fl', 'o', 'due', 'n', 'z', 'ts', 'all', 'ik' }

-- Everything a run will need is in the window: whoever closes it has no event at hand.
local function describe(c)
  return 'f', c.fn, 'a', c.lane, 'k', c.key, 'ne', c.noemit, 'fl', cmsgpack.pack(c.flow), 'ts', c.ts
end

-- Events by time where the last one speaks for all (collect), else as they came.
local function in_order(rows, by_time)
  if by_time then
    for i, row in ipairs(rows) do rows[i] = { string.sub(row, 1, 16), i, string.sub(row, 17) } end
    table.sort(rows, function(a, b)
      if a[1] ~= b[1] then return a[1] < b[1] end
      return a[2] < b[2]
    end)
    for i, row in ipairs(rows) do rows[i] = row[3] end
  end
  return rows
end

local function close_window(w)
  local more, blob = {}, nil
  if w.all == '' then
    blob = redis.call('HGET', k_window(w.id), 'e')
  else
    local rows = in_order(redis.call('LRANGE', k_gathered(w.id), 0, -1), w.all == 'c')
    blob = table.remove(rows, w.all == 'c' and #rows or 1)
    if #rows > 0 then more = { 'eb', cmsgpack.pack(rows) } end
    -- The trigger event is the last of them, not the first.
    if w.all == 'c' then more[#more + 1] = 'el'; more[#more + 1] = '1' end
  end
  redis.call('ZREM', k_due(), '~' .. w.f .. ':' .. w.id)
  redis.call('DEL', k_window(w.id), k_gathered(w.id))
  redis.call('HDEL', k_outcome(w.r), w.f)
  -- The run was cancelled before it began, by somebody who did not find its outcome.
  if redis.call('EXISTS', k_run(w.r)) == 1 then return turn_away(w.r, w.f, w.pa, 'cancelled', 'cancelled') end
  local c = {
    fn = w.f, lane = w.a, key = w.k, noemit = w.ne, parent = w.pa, start = w.s, run = w.r, created = w.c,
    flow = cmsgpack.unpack(w.fl), blob = blob, more = more, window = w,
  }
  if start(c) == 0 then
    for id in string.gmatch(w.ik, '%S+') do free_key(id, w.r) end
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

-- The window that takes the event, open since just now if need be. `all`: '' only one event counts · 'b' all, as they come · 'c' all, by
-- time. `most` events it may have. A window is over at its time, not when somebody comes to close it.
local function window_for(c, id, all, most)
  local w = read_window(id)
  if w and (tonumber(w.due) <= NOW or tonumber(w.n) >= most or tonumber(w.z) + #c.blob > GATHERED and all ~= ''
    or redis.call('EXISTS', k_run(w.r)) == 1) then
    close_window(w)
    w = nil
  end
  if w then return w, false end
  -- Clients wait for the run by its id. And who invoked it can't cancel a run that is to have others' events too: cancel.lua leaves a run
  -- alone that has an outcome.
  note(c.run, c.fn, 'open ' .. id)
  w = {
    r = c.run, f = c.fn, a = c.lane, k = c.key, ne = c.noemit, pa = '', s = c.start, c = c.created, fl = cmsgpack.pack(c.flow),
    o = NOW_S, due = NOW_S, n = 0, z = 0, ts = c.ts, all = all, id = id, ik = '',
  }
  redis.call('HSET', k_window(id), 'r', c.run, 's', c.start, 'c', c.created, 'o', NOW_S, 'pa', '', 'all', all, 'ik', '', describe(c))
  return w, true
end

-- The event is in the window: told as its outcome, and counted.
local function enter_window(c, w, word, due)
  local key = k_window(w.id)
  w.due, w.n, w.z = due, tonumber(w.n) + 1, tonumber(w.z) + #c.blob
  redis.call('HSET', key, 'due', string.format('%.0f', due), 'n', w.n, 'z', w.z)
  -- What says that it is open lives as long as it may be.
  if due - w.o > OUTCOME_MS - LEAST_LEFT then redis.call('PEXPIRE', k_outcome(w.r), due - NOW + OUTCOME_MS) end
  if c.flow.id then
    w.ik = w.ik .. ' ' .. c.flow.id
    redis.call('HSET', key, 'ik', w.ik)
    hold_key(c.flow.id, w.r)
  end
  note(c.event, c.fn, word .. ' ' .. w.r)
  if c.flow.v and c.run ~= w.r then
    note(c.run, c.fn, word .. ' ' .. w.r)
    tell_watchers(c.run)
  end
end

-- All events count: this one is put with the others, its invoke waits for the run of all.
local function gather(c, w)
  local row = c.blob
  if w.all == 'c' then row = string.format('%016.0f', c.ts) .. row end
  redis.call('RPUSH', k_gathered(w.id), row)
  if c.parent ~= '' then w.pa = w.pa == '' and c.parent or w.pa .. ' ' .. c.parent end
  -- A run begins no earlier than any of its events says.
  w.s = string.format('%.0f', math.max(tonumber(w.s), tonumber(c.start)))
  redis.call('HSET', k_window(w.id), 'pa', w.pa, 's', w.s)
end

-- A window whose time has come, by its item in `due`.
local function window_due(item)
  local w = read_window(string.match(item, '^~[^:]*:(.*)$'))
  if w then close_window(w) else redis.call('ZREM', k_due(), item) end
end
