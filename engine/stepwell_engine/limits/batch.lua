-- Events of a key become one run: when there are `max_size`, when `timeout` has passed since the first, or before the event that would
-- make more than 10 MiB. flow.bt = { id, max_size, timeout }
--- include limits/window
local function batch(c)
  local id, most, timeout = unpack(c.flow.bt)
  local w, new = window_for(c, id, 'b', most, timeout)
  local due = new and NOW + timeout or tonumber(w.due)
  gather(c, w, 'batched')
  enter_window(c, w, 'batched', due)
  if w.n >= most then
    close_window(w)
  elseif new then
    schedule('~' .. c.fn .. ':' .. id, due)
  end
  return 0
end
