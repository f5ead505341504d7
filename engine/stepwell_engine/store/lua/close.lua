-- close.lua  Windows whose time has come, as due.lua found them, end: each becomes a run, or is refused.
-- KEYS root
-- ARGV offset error [item]...
-- error: '', or why their runs are cancelled in the same write: then they end whatever their time.
-- An item is taken out here, so whoever comes second does nothing. Returns the function number of each run created.
--- include limits/window
for i = 3, #ARGV do
  local due = redis.call('ZSCORE', k_due(), ARGV[i])
  if due and ARGV[2] ~= '' then
    local w = read_window(string.match(ARGV[i], '^~[^:]*:(.*)$'))
    window_due(ARGV[i])
    enter() -- what is cancelled must be found in its queue
    local f = w and redis.call('HMGET', k_run(w.r), unpack(CANCEL_FIELDS))
    if f and f[1] then cancel_run(w.r, f, ARGV[2], 0) end
  elseif due and tonumber(due) <= NOW then
    window_due(ARGV[i])
  end
end
enter()
return STARTED
