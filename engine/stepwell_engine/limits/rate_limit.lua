-- Exact sliding window: `rl:<id>` has the runs of the last `period` by start, ms; at most `limit` of them. A start exactly one period
-- ago is out. The newest `limit` starts stay, however old: with them the window of a longer period, should a deploy give one, is exact.
-- Entries later than now (the clock was set back) count if by a period at most: fewer begin for a while, not more. Else they would hold
-- back for as long as the clock was set back: they are dropped.
-- rate = { id, limit, period }
--- include time
local RATES = {} -- what this call knows of each: all of it happens at one moment
local function over_rate(rate)
  local id = rate[1]
  if not RATES[id] then
    RATES[id] = { n = redis.call('ZCOUNT', k_rate(id), string.format('(%.0f', NOW - rate[3]), NOW + rate[3]) }
  end
  return RATES[id].n >= rate[2]
end

local function prune(rate, counted)
  local key = k_rate(rate[1])
  local left = redis.call('ZCARD', key) - math.max(counted, rate[2])
  if left <= 0 then return end
  left = left - redis.call('ZREMRANGEBYSCORE', key, string.format('(%.0f', NOW + rate[3]), '+inf')
  if left > 0 then redis.call('ZREMRANGEBYRANK', key, 0, left - 1) end
end

local function count_start(rate, run)
  local id = rate[1]
  local known = RATES[id]
  known.n = known.n + 1
  if known.kept then return zadd_later(k_rate(id), NOW_S, run) end
  redis.call('ZADD', k_rate(id), NOW_S, run)
  prune(rate, known.n)
  -- Garbage collection by the server's clock, with room for an engine clock that was set back.
  redis.call('PEXPIRE', k_rate(id), rate[3] * 2 + 600000)
  known.kept = true
end
