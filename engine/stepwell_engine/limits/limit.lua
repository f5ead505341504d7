-- Limits that events give (limit.py). `gl:<gate>` is `<us> <limit> <mark>`: the newest event's value, when that event was accepted, and
-- the mark of its last change (concurrency.lua). It lives for 31 days from its last use; should it be gone while runs are queued, what
-- their newest brought (`lm` = `<us> <gate>=<limit>...`) is the limit again.
--- include time
local LIMIT_MS = 2678400000

-- What fl:<fn> says of a limit that events give, nil of another.
local function by_event(text)
  if not text or string.byte(text) ~= 42 then return end
  local period, last = string.match(text, '^%*(%d*) (%d*)$')
  return { period = tonumber(period), last = tonumber(last) }
end

local function keep_limit(id, us, limit, mark)
  redis.call('SET', k_limit(id), string.format('%.0f %d %d', us, limit, mark), 'PX', LIMIT_MS)
  return { us = us, limit = limit, mark = mark }
end

local function brought(lm, id)
  for gate, limit in string.gmatch(lm, ' ([^= ]+)=(%d+)') do
    if gate == id then return tonumber(string.match(lm, '^%d+')), tonumber(limit) end
  end
end

local function restored_limit(id, fn, key)
  for _, queue in ipairs({ k_starts(fn, key), k_resumes(fn, key) }) do
    local item = redis.call('ZRANGE', queue, -1, -1)[1]
    local lm = item and redis.call('HGET', k_run(string.sub(item, 1, 26)), 'lm')
    local us, limit
    if lm then us, limit = brought(lm, id) end
    if us then return keep_limit(id, us, limit, tonumber(redis.call('GET', k_permit_serial()) or 0)) end
  end
end

-- { us, limit, mark }, or nil when no event gave one that is known.
local function kept_limit(id, fn, key)
  local text = redis.call('GETEX', k_limit(id), 'PX', LIMIT_MS)
  if not text then return restored_limit(id, fn, key) end
  local us, limit, mark = string.match(text, '^(%d+) (%d+) (%d+)$')
  return { us = tonumber(us), limit = tonumber(limit), mark = tonumber(mark) }
end
