-- A run comes into being. Its id is a function of (event, app, function), so its hash is the idempotency key of creation.
--- include time, ready, run
local function create(run, fn, lane, blob, start, created, noemit, parent, key, score)
  local hash = k_run(run)
  if redis.call('HSETNX', hash, 'st', 'q') == 0 then return 0 end
  local later = start > NOW
  local extra = {}
  if noemit ~= '' then extra = { 'ne', '1' } end
  if parent ~= '' then extra[#extra + 1] = 'pa'; extra[#extra + 1] = parent end
  if key ~= '' then extra[#extra + 1] = 'k'; extra[#extra + 1] = key end
  redis.call('HSET', hash, 'f', fn, 'a', lane, 't', score, 'e', blob, 'rs', later and 'd' or 'q', 'qa', later and start or NOW,
    unpack(extra))
  redis.call('ZADD', k_fn_runs(fn), created, run)
  if later then
    schedule(run, start)
  else
    enqueue(run, fn, key, lane, false, score)
  end
  return 1
end
