-- `Cancel`: what an event of a name must meet to cancel the run. Registrations lie in the index of waits (`wi:<name>`), under paths of their
-- own (`~` before the path), as members `<prefix><run>:!<i>`; each is the run's field `cn:<i>`, written by cancel.py (`Registration`): its name,
-- prefix and path are read here. They come with the run, in the same write, and go with its end, however it ends.
-- Only events accepted from `since` on count. One of them may have been handled before this run came to be: a name that a Cancel uses is
-- remembered (recent.py) before its registrations are looked up, so either that look finds the registration, or `look_back` finds the event.
-- Then the run is held: it stays in `due` (rs d) until every look-back has been answered, so it can't begin, and end, before the cancel that
-- was first. Its field `hd` = the look-backs' entries in the stream of events; there as long as it is held.
--- include time, schedule, ready, gather
local HELD_MS = 5000
local NEWEST = {} -- by name: when the newest event that is remembered was accepted, us

local function newest_event(name)
  if not NEWEST[name] then NEWEST[name] = tonumber(redis.call('ZRANGE', k_recent(name), -1, -1, 'WITHSCORES')[2] or 0) end
  return NEWEST[name]
end

-- Asks for a look at the events already remembered, one of each cancel that may have any; the entries, nil where none has.
-- cancels: { name, prefix, path }...; accepted: when the run's event was accepted, us.
local function look_back(run, cancels, accepted)
  local entries = {}
  for i, c in ipairs(cancels) do
    if newest_event(c[1]) > tonumber(accepted) then
      entries[#entries + 1] = redis.call('XADD', k_events(), '*', 'k', 'l', 'i', '', 'n', c[1], 't', digits(NOW_US), 'd', run .. ':!' .. i - 1, 'x', '')
    end
  end
  return entries[1] and table.concat(entries, ' ')
end

-- Its moment in `due` has come: no answer was heard of. It is held on while one is still to come, which the stream knows: an entry is
-- deleted after its answer, or when it is given up. So a lost answer costs HELD_MS, and a late one lets nothing through.
local function still_held(run, entries)
  local left = {}
  for entry in string.gmatch(entries, '%S+') do
    if #redis.call('XRANGE', k_events(), entry, entry) > 0 then left[#left + 1] = entry end
  end
  if #left == 0 then
    redis.call('HDEL', k_run(run), 'hd')
    return false
  end
  redis.call('HSET', k_run(run), 'hd', table.concat(left, ' '))
  schedule(run, NOW + HELD_MS)
  return true
end

-- A look-back found nothing that cancels the run: with the last of them it is let go, into its queue or to the time its event names.
local function let_go(run, entry)
  local key = k_run(run)
  local f = redis.call('HMGET', key, 'hd', 'rs', 'f', 'k', 'a', 't', 'qa')
  if not f[1] then return 0 end
  local left = {}
  for other in string.gmatch(f[1], '%S+') do
    if other ~= entry then left[#left + 1] = other end
  end
  if #left > 0 then
    redis.call('HSET', key, 'hd', table.concat(left, ' '))
    return 0
  end
  redis.call('HDEL', key, 'hd')
  if f[2] == 'd' and tonumber(f[7]) <= NOW then
    redis.call('ZREM', k_due(), run)
    redis.call('HSET', key, 'rs', 'q')
    enqueue(run, f[3], f[4] or '', f[5], false, f[6])
  end
  return 1
end

local function register_cancels(run, cancels)
  for i, c in ipairs(cancels) do
    zadd_later(k_waits(c[1]), '0', c[2] .. run .. ':!' .. i - 1)
    hincr_later(k_wait_paths(c[1]), c[3], 1)
  end
end

-- Gathered (lib/gather.lua).
local function release_cancels(run, n)
  local key, fields = k_run(run), {}
  for i = 1, n do fields[i] = 'cn:' .. i - 1 end
  for i, record in ipairs(redis.call('HMGET', key, unpack(fields))) do
    if record then
      local _, _, name, prefix, path = unpack(cmsgpack.unpack(record))
      zrem_later(k_waits(name), prefix .. run .. ':!' .. i - 1)
      hincr_later(k_wait_paths(name), path, -1)
    end
  end
  redis.call('HDEL', key, 'hd', unpack(fields))
end
