-- Every event puts the end off to `period` from now, not beyond `timeout` from the first; then one run starts with the last event by its
-- own time (of equal ones the later arrival), or with collect all of them. An event older than the window's takes no place, but puts the end off:
-- something did happen. A collect window that is full (10,000 events, 10 MiB) ends before the event that would be too many.
-- flow.db = { id, period, timeout or 0, collect }
--- include limits/window
local COLLECTED = 10000

local function debounce(c)
  local id, period, timeout, collect = unpack(c.flow.db)
  local w, new = window_for(c, id, collect and 'c' or '', collect and COLLECTED or 9e15)
  local due = NOW + period
  if timeout > 0 then due = math.min(due, tonumber(w.o) + timeout) end
  local newest = new or c.ts >= tonumber(w.ts)
  if newest and not new then redis.call('HSET', k_window(id), describe(c)) end
  if collect then
    gather(c, w)
  elseif newest then
    local replaced = w.pa
    w.pa, w.s = c.parent, c.start
    redis.call('HSET', k_window(id), 'e', c.blob, 'pa', c.parent, 's', c.start)
    disappoint(replaced, 'debounced')
  else
    disappoint(c.parent, 'debounced')
  end
  enter_window(c, w, 'debounced', due)
  schedule('~' .. c.fn .. ':' .. id, due)
  return 0
end
