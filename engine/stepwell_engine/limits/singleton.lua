-- `sg:<id>` names the run that has the key. The lock belongs to the run: taken as the run is created (run field `sg`), released
-- as it ends. In mode cancel a newer run takes it over at once, and the older one is cancelled.
--- include run
-- The live run that has the key, or nil.
local function lock_holder(id)
  local run = redis.call('GET', k_singleton(id))
  local st = run and redis.call('HGET', k_run(run), 'st')
  if st and not ended(st) then return run end
end

local function take_lock(id, run)
  redis.call('SET', k_singleton(id), run)
end

-- For every end of a run with `fx`.
local function release_singleton(run)
  local id = redis.call('HGET', k_run(run), 'sg')
  if id and redis.call('GET', k_singleton(id)) == run then redis.call('DEL', k_singleton(id)) end
end
