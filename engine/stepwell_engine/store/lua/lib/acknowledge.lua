-- The beginning that fanout.lua and admit.lua share: ARGV up to the runs. Guards, acknowledgement, records. Returns where the runs
-- begin, or nil and what to return: -1 when the version is another, where somebody waits the paths by which he does, for each name; 0 when another
-- coordinator has handled all entries.
--- include time
local function acknowledge()
  local consumers, ttl = ARGV[2], ARGV[3]
  local at = 4
  local n = tonumber(ARGV[at])
  if n > 0 then
    if redis.call('GET', k_functions_version()) ~= ARGV[at + 1] then return nil, -1 end
    local paths, waited = {}, false
    for i = at + 2, at + n do
      local some = redis.call('HKEYS', k_wait_paths(ARGV[i]))
      paths[#paths + 1], waited = some, waited or #some > 0
    end
    if waited then return nil, paths end
  end
  at = at + n + 1
  n = tonumber(ARGV[at])
  if n > 0 then
    local left = 0
    for from = at + 1, at + n, 1000 do
      local to = math.min(from + 999, at + n)
      redis.call('XACK', k_events(), consumers, unpack(ARGV, from, to))
      left = left + redis.call('XDEL', k_events(), unpack(ARGV, from, to))
    end
    if left == 0 then return nil, 0 end
  end
  at = at + n + 1
  n = tonumber(ARGV[at])
  for i = 0, n - 1 do
    redis.call('SET', k_record(ARGV[at + 1 + i * 2]), ARGV[at + 2 + i * 2], 'PX', ttl)
  end
  at = at + n * 2 + 1
  return at
end
