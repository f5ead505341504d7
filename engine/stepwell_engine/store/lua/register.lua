-- register.lua  A worker publishes its functions; the latest start wins, so an old process never overwrites a newer one.
-- KEYS root
-- ARGV started_ms [field config]...
-- A field is app \0 fn; a config's own number is given once, at first sight. Returns {version, [field, number, written?]...}.
local started = tonumber(ARGV[1])
local out, changed = {}, false
for i = 2, #ARGV, 2 do
  local field, config = ARGV[i], ARGV[i + 1]
  local old = redis.call('HGET', k_functions(), field)
  local number, written = nil, 0
  if old then
    local o = cmsgpack.unpack(old)
    number = o[1]
    if o[3] ~= config and o[2] <= started then
      written = 1
    elseif o[3] == config and o[2] < started then
      -- Or a process that began in between, with another config, would win over this newer one.
      redis.call('HSET', k_functions(), field, cmsgpack.pack({ number, started, config }))
    end
  else
    number = redis.call('HINCRBY', k_meta(), 'functions', 1)
    written = 1
  end
  if written == 1 then
    redis.call('HSET', k_functions(), field, cmsgpack.pack({ number, started, config }))
    changed = true
  end
  out[#out + 1] = { field, number, written }
end
local version = changed and redis.call('INCR', k_functions_version()) or tonumber(redis.call('GET', k_functions_version()) or 0)
return { version, out }
