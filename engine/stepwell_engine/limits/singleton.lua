-- `sg:<id>` names the run that has the key. The lock belongs to the run: taken as the run is created (run field `sg`), released
-- as it ends. In mode cancel a newer run takes it over at once, and the older one is cancelled. Newer is what was accepted later, in whatever
-- order the events of several shards are handled: so the lock has the accept time too, 16 digits of us behind the run, and in this mode stays
-- for a while after its run's end.
--- include run
local OVERTAKEN_MS = 3600000

-- The live run that has the key, or nil; and when what took the lock last was accepted, us.
local function lock_holder(id)
  local lock = redis.call('GET', k_singleton(id))
  if not lock then return nil, 0 end
  local run, accepted = string.sub(lock, 1, 26), tonumber(string.sub(lock, 27)) or 0
  local st = redis.call('HGET', k_run(run), 'st')
  -- What was accepted later than now was so before the clock went back: it is the newest no more.
  return st and not ended(st) and run or nil, accepted <= NOW_US and accepted or 0
end

-- accepted: nil in mode skip.
local function take_lock(id, run, accepted)
  redis.call('SET', k_singleton(id), accepted and run .. digits(accepted) or run)
end

-- For every end of a run with `fx`.
local function release_singleton(run)
  local id = redis.call('HGET', k_run(run), 'sg')
  local lock = id and redis.call('GET', k_singleton(id))
  if not lock or string.sub(lock, 1, 26) ~= run then return end
  if #lock == 26 then redis.call('DEL', k_singleton(id)) else redis.call('PEXPIRE', k_singleton(id), OVERTAKEN_MS) end
end
