-- unregister.lua  Functions leave the registry: from this version on nothing starts them. What they were stays, for the runs that they had.
-- KEYS root
-- ARGV offset [field]...
-- An entry keeps its number and config, and has the time of its removal as a fourth part until a worker registers the function again.
-- Returns {version, [field]...}: those that were there. Twice is as good as once.
--- include time
local gone = {}
for i = 2, #ARGV do
  local old = redis.call('HGET', k_functions(), ARGV[i])
  local o = old and cmsgpack.unpack(old)
  if o and not o[4] then
    redis.call('HSET', k_functions(), ARGV[i], cmsgpack.pack({ o[1], o[2], o[3], NOW }))
    gone[#gone + 1] = ARGV[i]
  end
end
local version = tonumber(redis.call('GET', k_functions_version()) or 0)
if #gone > 0 then
  version = redis.call('INCR', k_functions_version())
  -- Coordinators end its crons though no event comes.
  redis.call('XADD', k_events(), '*', 'k', 'w', 'i', '', 'n', 'fn', 't', '0', 'd', '', 'x', '')
end
return { version, unpack(gone) }
