-- arrive.lua  The runs of events that a coordinator was delivered just now, created before it has heard of them: it stands behind XREADGROUP.
-- KEYS root
-- ARGV offset group consumer after most version [name functions [fn lane cause]...]...
-- For namespaces with one shard. Names: those of which all that is known is that these functions want them, whatever they hold, without flow control;
-- nobody looks back for them (standing.py). It does what fanout.lua would be asked to do. An entry that differs in any way (a time of its own, a name
-- that is waited for, an internal one), and more than `most` of them, are left to the coordinator, which they were delivered to.
-- After: the last entry that the consumer knows of; older ones it handles itself, or has left.
-- Again, late, or after a lost reply: what is handled is deleted, and a run that exists is not made anew.
-- Returns {entry handled...}, {fn, how many of its runs began...}.
--- include create, entropy
local consumers, most = ARGV[2], tonumber(ARGV[5])

-- Where in ARGV the functions begin that want a name, and how many they are; nil when the name is not among the plain ones.
local function wanted(name)
  local at = 7
  while ARGV[at] do
    local n = tonumber(ARGV[at + 1])
    if ARGV[at] == name then return at + 2, n end
    at = at + 2 + n * 3
  end
end

-- Whether an encoded event, [name, id | nil, ts, ...], has no time of its own; false when that is hard to tell.
local function timeless(name, data)
  local at = 2 + #name + (#name < 32 and 1 or #name < 256 and 2 or 3)
  local head = string.byte(data, at) or 0
  if head == 0xc0 then
    at = at + 1
  elseif head >= 0xa0 and head <= 0xbf then
    at = at + 1 + head - 0xa0
  elseif head == 0xd9 then
    at = at + 2 + (string.byte(data, at + 1) or 0)
  else
    return false
  end
  return string.byte(data, at) == 0
end

-- An entry's runs; false when it is left. fields: k i n t d x, each with its value.
local began = {}
local function arrive(entry, fields)
  local event, name, data = fields[4], fields[6], fields[10]
  if fields[2] ~= 'u' then return false end
  local at, n = wanted(name)
  if not at or not timeless(name, data) or #redis.call('HKEYS', k_wait_paths(name)) > 0 then return false end
  local created, order = string.sub(fields[8], 1, -4), tonumber(string.match(entry, '%-(%d+)$'))
  if order > 0 then created = created .. string.format('.%03d', math.min(order, 999)) end
  for o = at, at + n * 3 - 1, 3 do
    local fn = ARGV[o]
    local run = string.sub(event, 1, 10) .. run_entropy(event, ARGV[o + 2])
    began[fn] = (began[fn] or 0) + create(group(fn, ARGV[o + 1], '0', '', '', ''), run, event .. data, created, false)
  end
  return true
end

if redis.call('GET', k_functions_version()) ~= ARGV[6] then return { {}, {} } end
local pending = redis.call('XPENDING', k_events(), consumers, '(' .. ARGV[4], '+', most + 1, ARGV[3])
local handled, counts = {}, {}
if #pending <= most then
  for _, p in ipairs(pending) do
    local entry = p[1]
    local row = redis.call('XRANGE', k_events(), entry, entry)[1]
    if row and arrive(entry, row[2]) then handled[#handled + 1] = entry end
  end
end
if #handled > 0 then
  redis.call('XACK', k_events(), consumers, unpack(handled))
  redis.call('XDEL', k_events(), unpack(handled))
  enter()
end
for fn, n in pairs(began) do
  counts[#counts + 1] = fn
  counts[#counts + 1] = n
end
return { handled, counts }
