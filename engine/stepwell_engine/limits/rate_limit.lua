-- Exact sliding window: `rl:<id>` has the runs of the last `period` by start, ms; at most `limit` of them. A start exactly one period
-- ago is out. Entries later than now (the clock was set back) count: it admits too few for a while, never too many.
-- rate = { id, limit, period }
--- include time
local RATES = {} -- what this call knows of each: all of it happens at one moment
local function over_rate(rate)
  local id = rate[1]
  if not RATES[id] then
    redis.call('ZREMRANGEBYSCORE', k_rate(id), '-inf', NOW - rate[3])
    RATES[id] = { n = redis.call('ZCARD', k_rate(id)) }
  end
  return RATES[id].n >= rate[2]
end

local function count_start(rate, run)
  local id = rate[1]
  local known = RATES[id]
  known.n = known.n + redis.call('ZADD', k_rate(id), NOW, run)
  if known.kept then return end
  -- Garbage collection by the server's clock, with room for an engine clock that was set back.
  redis.call('PEXPIRE', k_rate(id), rate[3] * 2 + 600000)
  known.kept = true
end
