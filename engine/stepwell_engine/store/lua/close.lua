-- close.lua  Windows whose time has come, as due.lua found them, end: each becomes a run, or is refused.
-- KEYS root
-- ARGV offset [item]...
-- An item is taken out here, so whoever comes second does nothing. Returns the function number of each run created.
--- include limits/window
for i = 2, #ARGV do
  local due = redis.call('ZSCORE', k_due(), ARGV[i])
  if due and tonumber(due) <= NOW then window_due(ARGV[i]) end
end
enter()
return STARTED
