-- A run is cancelled: at once when no worker holds it, else its workers are asked and have `grace` ms. Idempotent.
--- include finish
-- The runs it invoked that had not ended when it last heard of them, and theirs: where they live is worked out by whoever reads the
-- outbox. A run that has ended itself has them in `ch:`.
local function cancel_children(run)
  local all = redis.call('HGETALL', k_run(run))
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'p:' then
      local p = cmsgpack.unpack(all[i + 1])
      if p[1] == 'i' then owe('C', run, string.sub(all[i], 3), p[4], digits(p[3])) end
    elseif string.sub(all[i], 1, 3) == 'ch:' then
      owe('C', run, string.sub(all[i], 4), unpack(cmsgpack.unpack(all[i + 1])))
    end
  end
end

-- f: the run's fields as CANCEL_FIELDS names them, of a run that exists. Returns its status afterwards.
local CANCEL_FIELDS = { 'st', 'rs', 'f', 'k', 'a', 'np', 'ne', 'pa', 'l', 'w' }
local function cancel_run(run, f, err, grace)
  local key, st = k_run(run), f[1]
  if ended(st) or st == 'x' then return st end

  local holders = {}
  if f[2] == 'l' then holders[f[10] or ''] = true end
  if tonumber(f[6] or '0') > 0 then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      if string.sub(all[i], 1, 2) == 'l:' and all[i + 1] ~= '' then
        holders[redis.call('HGET', key, 'w' .. string.sub(all[i], 2)) or ''] = true
      end
    end
  end
  if next(holders) then
    redis.call('HSET', key, 'st', move(st, 'x'), 'er', err)
    schedule(run .. ':!', NOW + grace)
    for worker in pairs(holders) do tell(worker, 'c' .. run) end
    return 'x'
  end
  redis.call('ZREM', k_due(), run)
  if f[2] == 'q' then dequeue(run, f[3], f[4] or '', f[5]) end
  finish(run, 'k', err, { st = st, np = f[6], ne = f[7], pa = f[8] }, { 'lt', '' })
  return 'k'
end
