-- A timeout's moment has come (`<run>:<` or `<run>:>` in `due`, which the caller took out): the run is cancelled, unless it has begun or ended,
-- or something else is cancelling it. Whoever is first has the run's `er`.
--- include cancel
local GRACE = 10000
local SPANS = { { 'd', 86400000 }, { 'h', 3600000 }, { 'm', 60000 }, { 's', 1000 }, { 'ms', 1 } }

-- As users write it: 90000 is 1m30s.
local function span(ms)
  local out = ''
  for _, unit in ipairs(SPANS) do
    local n = math.floor(ms / unit[2])
    if n > 0 then out = out .. string.format('%d', n) .. unit[1] end
    ms = ms - n * unit[2]
  end
  return out
end

local function timed_out(run, which)
  local f = redis.call('HMGET', k_run(run), unpack(CANCEL_FIELDS))
  if not f[1] or (which == '<' and f[1] ~= 'q') then return end
  local ms = redis.call('HGET', k_run(run), which == '<' and 'tb' or 'tf')
  if not ms then return end
  local why = which == '<' and 'timeouts: start ' .. span(ms) .. ': the run had not begun by then'
    or 'timeouts: finish ' .. span(ms) .. ': the run had not ended by then'
  local reason = which == '<' and 'timeout_start' or 'timeout_finish'
  cancel_run(run, f, cmsgpack.pack({ code = 'run_cancelled', name = 'RunCancelledError', message = why, reason = reason }), GRACE)
end
