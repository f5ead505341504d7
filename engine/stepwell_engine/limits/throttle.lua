-- The generic cell rate algorithm over `th:<id>`, the theoretical arrival time (TAT) in µs; see throttle.py.
--- include time
local ARRIVALS = {}

-- No start of this throttle leaves a later TAT than this bound: beyond it, the clock went back, or the interval was longer then.
local function arrival(gate)
  local tat = ARRIVALS[gate.id] or tonumber(redis.call('GET', k_arrival(gate.id)) or 0)
  return math.max(math.min(tat, NOW_US + gate.burst * gate.interval), NOW_US)
end

-- How many starts it admits at this moment, and the ms from which it admits one more than `taken` of them.
local function tokens(gate, taken)
  local tau, tat = (gate.burst - 1) * gate.interval, arrival(gate)
  local spare = NOW_US + tau - tat
  local n = spare < 0 and 0 or math.floor(spare / gate.interval) + 1
  return n, math.ceil((tat + (taken or 0) * gate.interval - tau) / 1000)
end

local function take_token(gate)
  local tat = arrival(gate) + gate.interval
  ARRIVALS[gate.id] = tat
  -- Once it is past, absence says the same.
  redis.call('SET', k_arrival(gate.id), digits(tat), 'PX', math.ceil((tat - NOW_US) / 1000) + 86400000)
end
