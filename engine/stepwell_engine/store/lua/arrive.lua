-- arrive.lua  The runs of events that a coordinator was delivered just now, created before it has heard of them: it stands behind XREADGROUP.
-- KEYS root
-- ARGV offset group consumer after most version [name functions [fn lane cause]...]...
-- For namespaces with one shard. Names: those of which all that is known is that these functions want them, whatever they hold, without flow control;
-- nobody looks back for them (standing.py). It does what fanout.lua would be asked to do. An entry that differs in any way (a time of its own, a
-- name that is waited for, an internal one, one that can't be read) is left to the coordinator, which it was delivered to, and so is what comes
-- after it, for their order; all are if they are more than `most`. After: the last entry that the coordinator knows of; older ones are its own affair.
-- Nothing is written before all is checked: a run that is half made would be taken for made.
-- Again, late, or after a lost reply: what is handled is deleted, and a run that exists is not made anew.
-- Returns nothing, or {entry handled...}, {fn, how many of its runs began...}.
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

-- An entry as it is wanted, or nil when it is left. fields: k i n t d x, each with its value.
local function simple(fields)
  if #fields ~= 12 or fields[2] ~= 'u' then return end
  local event, name, us = fields[4], fields[6], fields[8]
  if #event ~= 26 or not string.find(event, '^[0-7][0-9A-HJKMNP-TV-Z]+$') or not string.find(us, '^%d%d%d%d+$') then return end
  local at, n = wanted(name)
  if not at or not timeless(name, fields[10]) or #redis.call('HKEYS', k_wait_paths(name)) > 0 then return end
  return { id = event, data = fields[10], ms = string.sub(us, 1, -4), from = at, to = at + n * 3 - 1 }
end

if redis.call('GET', k_functions_version()) ~= ARGV[6] then return {} end
local pending = redis.call('XPENDING', k_events(), consumers, '(' .. ARGV[4], '+', most + 1, ARGV[3])
if #pending > most then return {} end
local handled, events = {}, {}
for _, p in ipairs(pending) do
  local row = redis.call('XRANGE', k_events(), p[1], p[1])[1]
  -- One that was deleted is nobody's.
  if row then
    local event = simple(row[2])
    if event then
      event.order = math.min(tonumber(string.match(p[1], '%-(%d+)$')), 999)
      handled[#handled + 1] = p[1]
      events[#events + 1] = event
    elseif not string.find(row[2][2], '^[wfls]$') then
      -- Wake-ups, ends, look-backs and skips come between events, and have no place among them.
      break
    end
  end
end
if #handled == 0 then return {} end

local began, counts = {}, {}
for _, e in ipairs(events) do
  local place = e.order > 0 and e.ms .. string.format('.%03d', e.order) or e.ms
  for o = e.from, e.to, 3 do
    local fn = ARGV[o]
    local run = string.sub(e.id, 1, 10) .. run_entropy(e.id, ARGV[o + 2])
    began[fn] = (began[fn] or 0) + create(group(fn, ARGV[o + 1], '0', '', '', ''), run, e.id .. e.data, place, false)
  end
end
redis.call('XACK', k_events(), consumers, unpack(handled))
redis.call('XDEL', k_events(), unpack(handled))
enter()
for fn, n in pairs(began) do
  counts[#counts + 1] = fn
  counts[#counts + 1] = n
end
return { handled, counts }
