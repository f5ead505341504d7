-- register.lua  A worker publishes its functions; the latest start wins, so an old process never overwrites a newer one.
-- KEYS root
-- ARGV started_ms [field config]...
-- A field is app \0 fn; a config's own number is given once, at first sight. Returns {version, [field, number, written?]...}.
local started = tonumber(ARGV[1])
local out, changed, press = {}, false, false
-- Whether a config, MessagePack as it is, has a cron or gates. A text of such a name in it is taken for one: harmless.
local function pressing(config)
  return string.find(config, '\164cron', 1, true) or string.find(config, '\171concurrency', 1, true) or string.find(config, '\168throttle', 1, true)
end
for i = 2, #ARGV, 2 do
  local field, config = ARGV[i], ARGV[i + 1]
  local old = redis.call('HGET', k_functions(), field)
  local number, written, was = nil, 0, ''
  if old then
    local o = cmsgpack.unpack(old)
    was = o[3]
    number = o[1]
    if o[4] then
      -- It was removed (unregister.lua): whoever serves it now brings it back, whatever its clock says.
      written = 1
    elseif o[3] ~= config and o[2] <= started then
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
    press = press or pressing(config) or pressing(was)
  end
  out[#out + 1] = { field, number, written }
end
local version = changed and redis.call('INCR', k_functions_version()) or tonumber(redis.call('GET', k_functions_version()) or 0)
-- Coordinators learn of other changes with the next event; of crons and limits they must learn though none comes.
if press then redis.call('XADD', k_events(), '*', 'k', 'w', 'i', '', 'n', 'fn', 't', '0', 'd', '', 'x', '') end
return { version, out }
