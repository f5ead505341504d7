-- The generic cell rate algorithm over `th:<id>`, the theoretical arrival time (TAT) in µs; see throttle.py.
--- include time
local ARRIVALS, TAKEN = {}, {} -- TAKEN: gates of which this call took tokens, to be written by `write_arrivals`

local function arrive(gate, tat)
  ARRIVALS[gate.id] = tat
  -- Once it is past, absence says the same.
  redis.call('SET', k_arrival(gate.id), digits(tat), 'PX', math.ceil((tat - NOW_US) / 1000) + 86400000)
  return tat
end

local function arrival(gate)
  local tat, bound = ARRIVALS[gate.id] or tonumber(redis.call('GET', k_arrival(gate.id)) or 0), NOW_US + gate.burst * gate.interval
  ARRIVALS[gate.id] = tat
  -- No start leaves a later one: the clock went back, or the interval was longer then. It is written down, or it would stay as far off.
  if tat > bound then return arrive(gate, bound) end
  return math.max(tat, NOW_US)
end

-- How many starts it admits at this moment, and the ms from which it admits one more than `taken` of them.
local function tokens(gate, taken)
  local tau, tat = (gate.burst - 1) * gate.interval, arrival(gate)
  local spare = NOW_US + tau - tat
  local n = spare < 0 and 0 or math.floor(spare / gate.interval) + 1
  return n, math.ceil((tat + (taken or 0) * gate.interval - tau) / 1000)
end

local function take_token(gate)
  ARRIVALS[gate.id] = arrival(gate) + gate.interval
  TAKEN[gate.id] = gate
end

local function write_arrivals()
  for id, gate in pairs(TAKEN) do arrive(gate, ARRIVALS[id]) end
end

-- The interval changes now: what was taken stays as many starts. Else a longer one would give back some of the burst, again and again.
local function stretch(was, gate)
  local ahead = arrival(was) - NOW_US
  if ahead > 0 then arrive(gate, NOW_US + math.ceil(ahead * gate.interval / was.interval)) end
end
