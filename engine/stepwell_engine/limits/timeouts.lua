-- `Timeouts`: the moments at which a run is cancelled, as items of `due`: `<run>:<` unless it has begun by then, `<run>:>` unless it has ended.
-- Run fields, of every run whose function has any: tb, tf = the two spans in ms, 0 = none; where tb > 0, tl = the last moment to begin.
-- Invariants: `<run>:<` is in `due` if and only if tb > 0 and the run is queued for the first time; `<run>:>` if and only if tf > 0 and it has
-- begun and neither ended nor passed that moment.
--- include schedule, gather
-- As the run is created; gathered (lib/gather.lua).
local function begin_start_timeout(run, latest)
  zadd_later(k_due(), digits(latest), run .. ':<')
  wake(latest)
end

-- At the first lease; gathered. finish, latest: the run's tf and tl. False: its moment to begin has passed and nobody came to cancel it, so it
-- may not any more. It goes to `due`, where that moment, which is before it, ends it.
local function begin_in_time(run, finish, latest)
  if latest then
    if tonumber(latest) <= NOW then
      redis.call('HSET', k_run(run), 'rs', 'd')
      schedule(run, NOW)
      return false
    end
    zrem_later(k_due(), run .. ':<')
  end
  if finish ~= '0' then
    local ends = NOW + tonumber(finish)
    zadd_later(k_due(), ends, run .. ':>')
    wake(ends)
  end
  return true
end

local function release_timeouts(run)
  zrem_later(k_due(), run .. ':<')
  zrem_later(k_due(), run .. ':>')
end
