-- due.lua  What is due happens: sleeps and timeouts complete their step, retries and future starts are queued, cancels' grace ends.
-- KEYS root
-- ARGV offset limit horizon invoke_timeout_error cancelled_error
-- Returns {handled, lateness of the oldest in ms, next due or '', first lease expiry or '', now, functions with cron ticks due, windows
-- that are over} and says in `wake` when the caller means to look again: at the
-- next due time or `horizon` ms from now. Another coordinator's later word may overwrite an earlier one: both still look when they
-- said they would, so an item before the later word has at least one of them or a wake entry.
-- Windows (~<fn>:<id>) stay too, for close.lua: here their part of the code would cost every look.
-- Cron items (%<fn>) stay: the caller works out the ticks, and tick.lua moves the item on with what they cause.
--- include finish, limits/timed_out
local items = redis.call('ZRANGEBYSCORE', k_due(), '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[2]))
local late, ticks, windows = nil, {}, {}

local function root(run)
  local f = redis.call('HMGET', k_run(run), 'st', 'rs', 'f', 'k', 'a', 't', 'hd')
  if not f[1] or f[2] ~= 'd' then return end
  if f[7] and still_held(run, f[7]) then return end
  redis.call('HSET', k_run(run), 'rs', 'q')
  enqueue(run, f[3], f[4] or '', f[5], f[1] ~= 'q', f[6])
end

local function graceless(run)
  local f = redis.call('HMGET', k_run(run), 'st', 'np', 'ne', 'pa', 'er')
  if f[1] ~= 'x' then return end
  redis.call('ZREM', k_leases(), run)
  finish(run, 'k', f[5] or ARGV[5], { st = 'x', np = f[2], ne = f[3], pa = f[4], distributed = true }, { 'lt', '' })
end

local function timer(run, step)
  local key = k_run(run)
  local f = redis.call('HMGET', key, 'st', 'p:' .. step, 'f', 'k', 'a', 't')
  if not f[1] or ended(f[1]) or not f[2] then return end
  local p = cmsgpack.unpack(f[2])
  if p[1] == 'P' then
    return enqueue(run .. ':' .. step, f[3], f[4] or '', f[5], true, f[6])
  end
  if p[1] == 'r' then
    redis.call('HDEL', key, 'p:' .. step)
    redis.call('HINCRBY', key, 'np', -1)
    redis.call('HINCRBY', key, 'dv', 1)
    return wake_run(run)
  end
  if p[1] == 'i' then
    if p[5] == '1' then owe('c', run, step, p[4], digits(p[3])) end
    complete(run, step, p, 'e', ARGV[4])
  else
    complete(run, step, p, 'n', '')
  end
end

for i = 1, #items, 2 do
  local item = items[i]
  if string.sub(item, 1, 1) == '%' then
    ticks[#ticks + 1] = string.sub(item, 2)
  elseif string.sub(item, 1, 1) == '~' then
    windows[#windows + 1] = item
  else
    late = late or NOW - tonumber(items[i + 1])
    redis.call('ZREM', k_due(), item)
    local run, step = string.sub(item, 1, 26), string.sub(item, 28)
    if string.sub(item, 1, 1) == '*' then
      throttle_due(string.sub(item, 2))
    elseif step == '' then
      root(run)
    elseif step == '!' then
      graceless(run)
    elseif step == '<' or step == '>' then
      timed_out(run, step)
    else
      timer(run, step)
    end
  end
end

local head = redis.call('ZRANGE', k_due(), 0, 0, 'WITHSCORES')[2]
local lease = redis.call('ZRANGE', k_leases(), 0, 0, 'WITHSCORES')[2]
local horizon = NOW + tonumber(ARGV[3])
redis.call('SET', k_wake(), head and math.min(tonumber(head), horizon) or horizon)
return { #items / 2 - #ticks - #windows, late or 0, head or '', lease or '', NOW_S, ticks, windows }
