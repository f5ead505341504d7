--- include time
local WAKE
-- A due time was put in, or will be by this script: wakes a coordinator that means to sleep past it. `wake` may name a moment whose
-- coordinator died: then the others look by themselves within their longest block (5 s).
local function wake(due)
  if WAKE == nil then WAKE = tonumber(redis.call('GET', k_wake())) or math.huge end
  if due < WAKE then
    WAKE = due
    redis.call('SET', k_wake(), due)
    redis.call('XADD', k_events(), '*', 'k', 'w', 'i', '', 'n', '', 't', digits(NOW_US), 'd', '', 'x', '')
  end
end

local function schedule(item, due)
  redis.call('ZADD', k_due(), due, item)
  wake(due)
end
