-- The engine's clock: the server's TIME plus the offset of the test harness (ARGV[1], ms, 0 in production).
local NOW_US, NOW, NOW_S
do
  local t = redis.call('TIME')
  NOW_US = t[1] * 1000000 + t[2] + tonumber(ARGV[1]) * 1000
  NOW = math.floor(NOW_US / 1000)
  -- A number given to redis.call is printed each time; hot paths give this. ('%d': a float costs more to print.)
  NOW_S = string.format('%d', NOW)
end

-- Microseconds have 16 digits; Lua's own number formatting keeps 14. (What it is given may have a fraction.)
local function digits(n)
  return string.format('%.0f', n)
end
