-- The end of a run, whoever brings it: its own return, a failure, a cancel, a crash too many. One write: status, result, timers and
-- waits gone, parent told, watchers told, internal events in the stream.
--- include run, shard, release

-- Internal events travel as a reference to the run, whose hash outlives them (the sweep waits for the streams). `told` is for metrics.
local function emit(name, run, told)
  redis.call('XADD', k_events(), '*', 'k', 'f', 'i', '', 'n', name, 't', digits(NOW_US), 'd', run, 'x', told or '')
end

local function resolve_parent(parent, status, value)
  local run, step = string.sub(parent, 1, 26), string.sub(parent, 28)
  if shard_of(run) ~= HERE then return owe('r', run, step, status, value) end
  local f = redis.call('HMGET', k_run(run), 'st', 'p:' .. step)
  if f[1] and not ended(f[1]) and f[2] then
    complete(run, step, cmsgpack.unpack(f[2]), status, value)
  end
end

-- One run may be the child of several invokes: of all whose events it has (batch, debounce with collect).
local function resolve_parents(parents, status, value)
  for parent in string.gmatch(parents, '%S+') do resolve_parent(parent, status, value) end
end

local function tell_watchers(run)
  local watchers = redis.call('SMEMBERS', k_watchers(run))
  if #watchers > 0 then
    for _, watcher in ipairs(watchers) do
      redis.call('RPUSH', k_reply(watcher), run)
      redis.call('PEXPIRE', k_reply(watcher), 600000)
    end
    redis.call('DEL', k_watchers(run))
  end
end

-- The root's own place, when something else than the root ends the run.
local function drop_root(run)
  local f = redis.call('HMGET', k_run(run), 'rs', 'f', 'k', 'a', 'l', 'w')
  if f[1] == 'd' then
    redis.call('ZREM', k_due(), run)
  elseif f[1] == 'q' then
    dequeue(run, f[2], f[3] or '', f[4])
  elseif f[5] and f[5] ~= '' then
    redis.call('ZREM', k_leases(), run)
    if f[3] then vacate(run, f[2], f[3]) end
    tell(f[6], 'c' .. run)
  end
end

-- A pending nobody wants any more, with its timer, wait, queue item and, where asked for, its child.
local function drop(run, step, p)
  unindex(run, step, p)
  if p[1] == 'i' and p[5] == '1' then owe('c', run, step, p[4], digits(p[3])) end
  redis.call('HDEL', k_run(run), 'p:' .. step)
end

-- What still waits on behalf of a run that ends.
local function drop_pendings(run)
  local key = k_run(run)
  drop_root(run)
  local all, at = redis.call('HGETALL', key), {}
  for i = 1, #all, 2 do
    if all[i] == 'f' or all[i] == 'k' then at[all[i]] = all[i + 1] end
  end
  for i = 1, #all, 2 do
    local name = all[i]
    local kind = string.sub(name, 1, 2)
    if kind == 'p:' then
      local step, p = string.sub(name, 3), cmsgpack.unpack(all[i + 1])
      -- A child that goes on can still be cancelled through the run that invoked it (lib/cancel.lua).
      if p[1] == 'i' and p[5] ~= '1' then redis.call('HSET', key, 'ch:' .. step, cmsgpack.pack({ p[4], digits(p[3]) })) end
      drop(run, step, p)
    elseif kind == 'l:' and all[i + 1] ~= '' then
      local step = string.sub(name, 3)
      redis.call('ZREM', k_leases(), run .. ':' .. step)
      if at.k then vacate(run .. ':' .. step, at.f, at.k) end
      tell(redis.call('HGET', key, 'w:' .. step), 'c' .. run)
      -- A heartbeat that finds its token would put the lease back.
      redis.call('HDEL', key, name)
    end
  end
end

-- f: st, np, ne, pa as read by the caller.
local function finish(run, to, payload, f, extra)
  local key = k_run(run)
  move(f.st, to)
  if f.st == 'x' then redis.call('ZREM', k_due(), run .. ':!') end
  if f.np and f.np ~= '0' and f.np ~= '' or f.distributed then drop_pendings(run) end
  redis.call('HSET', key, 'st', to, 'ea', NOW, to == 'c' and 'o' or 'er', payload, unpack(extra))
  redis.call('HDEL', key, 'rs', 'l', 'su', 'np', 'dv')
  redis.call('ZADD', k_ended(), NOW, run)
  local told
  if to == 'k' then
    local read, err = pcall(cmsgpack.unpack, payload)
    told = redis.call('HGET', key, 'f') .. ' ' .. (read and type(err) == 'table' and err.reason or '')
  end
  if not f.ne then
    if to == 'f' then emit('inngest/function.failed', run) end
    if told then emit('inngest/function.cancelled', run, told) end
    emit('inngest/function.finished', run)
  elseif told then
    -- No event, but it is counted.
    redis.call('XADD', k_events(), '*', 'k', 'w', 'i', '', 'n', '', 't', '0', 'd', '', 'x', told)
  end
  if f.pa then resolve_parents(f.pa, to == 'c' and 'v' or 'e', payload) end
  local undo = redis.call('HMGET', key, 'fx', 'f', 'k')
  if undo[1] then
    release_run(run, undo[1], undo[2], undo[3])
    write_gathered()
  end
  tell_watchers(run)
end
