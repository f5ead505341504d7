-- Every event puts the end off to `period` from now, not beyond `timeout` from the first; then one run starts with the last event by its
-- own time (of equal ones the one accepted last), or with collect all of them. An event older than the window's takes no place, but puts the end off:
-- something did happen. A collect window that is full (10,000 events, 10 MiB) ends before the event that would be too many.
-- flow.db = { id, period, timeout or 0, collect }
--- include limits/window
local COLLECTED = 10000

local function debounce(c)
  local id, period, timeout, collect = unpack(c.flow.db)
  local w, new = window_for(c, id, collect and 'c' or '', COLLECTED, timeout > 0 and timeout or period)
  local due = NOW + period
  if timeout > 0 then due = math.min(due, tonumber(w.o) + timeout) end
  local last = new or newest(c, w)
  if last and not new then redis.call('HSET', k_window(id), describe(c)) end
  if w.all == 'c' then
    gather(c, w, 'debounced')
  elseif last then
    stand(c, w)
  else
    replace(w, c.flow.v and c.run or '', c.parent)
  end
  enter_window(c, w, 'debounced', due)
  schedule('~' .. c.fn .. ':' .. id, due)
  return 0
end
