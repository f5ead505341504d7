-- commit.lua  Everything one entry of a run did since its last commit, and how the entry goes on: one write, fenced by its token.
-- KEYS root
-- ARGV offset run step token dv clause c1 c2 c3 [op ...]...
-- step is '' for the root, else the step key of a planned item. Clauses:
--   N go on · S park the root · F end the run (status payload attempts) · R retry the item later (delay attempts) · Y release, queue again (reason)
--   D the planned step is done
-- Ops, each with its arguments; all are idempotent, since a commit is sent again when its reply was lost:
--   d step record attempts events [name encoded entropy id_hash shard]...   a step's result, with the events it sends
--   a step delay attempts head                          a failed attempt, retried later
--   z step mode ms head                                 sleep: mode d (duration) or u (until)
--   w step timeout name prefix path head reg            wait for an event; reg = earliest accept time, us, or ''
--   g step timeout head                                 wait for a signal, reserved before
--   i step timeout head encoded entropy extra cancel    invoke: its event goes into this shard's stream
--   p step head                                         a planned step, its own queue item
--   x step                                              a race's loser: its pending goes
--   m mode                                              how the root is woken by planned steps: w when all are done, r after each
-- Returns {code, dv}: OK · AGAIN (something arrived: not parked) · STUCK (nothing would ever wake it: not parked) · CANCEL (asked to stop) · FENCED · GONE
--- include ulid, finish
local run, step, token, seen, clause = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local sfx = step == '' and '' or ':' .. step
local key = k_run(run)
local v = redis.call('HMGET', key, 'st', 'l' .. sfx, 'dv', 'lt' .. sfx, 'np', 'su' .. sfx, 'sz', 'f', 'k')
local st, dv, np = v[1], v[3] or '0', tonumber(v[5] or '0')
if not st then return { 'GONE', '0' } end
if v[2] ~= token then
  return { v[4] == token and 'OK' or 'FENCED', dv }
end
if ended(st) then return { 'FENCED', dv } end
if st == 'x' and not (clause == 'F' and ARGV[7] == 'k') then return { 'CANCEL', dv } end

local set = {}
local function put(name, value)
  set[#set + 1] = name
  set[#set + 1] = value
end

-- Lua's stack holds 8,000 results of `unpack`, less what is on it already.
local function flush()
  for from = 1, #set, 1000 do
    redis.call('HSET', key, unpack(set, from, math.min(from + 999, #set)))
  end
  set = {}
end

-- Accept an event in this shard's stream, or owe it to the shard that de-duplicates its id.
local function send(name, encoded, entropy, id_hash, shard)
  local id = #entropy == 26 and entropy or ulid_time(NOW) .. entropy
  if shard ~= '' and tonumber(shard) ~= HERE then
    return owe('e', shard, id, name .. '\0' .. id_hash, encoded)
  end
  if id_hash ~= '' then
    local known = redis.call('GET', k_event_id(id_hash))
    if known and tonumber(string.sub(known, 1, 13)) > NOW then
      return redis.call('SET', k_record(id), 'D' .. string.sub(known, 14), 'PX', 172800000)
    end
    redis.call('SET', k_event_id(id_hash), string.format('%013.0f', NOW + 86400000) .. id, 'PX', 172800000)
  end
  redis.call('XADD', k_events(), '*', 'k', 'u', 'i', id, 'n', name, 't', digits(NOW_US), 'd', encoded, 'x', '')
end

local function known(target)
  local r = redis.call('HMGET', key, 's:' .. target, 'p:' .. target)
  return r[1] or r[2]
end

local function pend(target, record)
  redis.call('HSET', key, 'p:' .. target, cmsgpack.pack(record))
  np = np + 1
  if record[2] > 0 then schedule(run .. ':' .. target, record[2]) end
end

local at = 10
local ops = {}

function ops.d()
  local target, record, attempts, events = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
  local o = at + 5
  at = o + events * 5
  if events > 0 and redis.call('HEXISTS', key, 's:' .. target) == 1 then return end
  put('s:' .. target, record)
  put('sz', (tonumber(v[7]) or 0) + #record)
  v[7] = set[#set]
  if attempts ~= '' then put('t:' .. target, attempts) end
  if v[6] == '1' then put('cr' .. sfx, '0'); redis.call('HDEL', key, 'su' .. sfx) end
  if np > 0 then
    local p = redis.call('HGET', key, 'p:' .. target)
    if p then
      unindex(run, target, cmsgpack.unpack(p))
      redis.call('HDEL', key, 'p:' .. target)
      np = np - 1
    end
  end
  for i = 0, events - 1 do
    local e = o + i * 5
    send(ARGV[e], ARGV[e + 1], ARGV[e + 2], ARGV[e + 3], ARGV[e + 4])
  end
end

function ops.a()
  local target, delay, attempts, head = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
  at = at + 5
  if known(target) then return end
  put('t:' .. target, attempts)
  pend(target, { 'r', NOW + delay, NOW_US, head })
end

function ops.z()
  local target, mode, ms, head = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 4]
  at = at + 5
  if known(target) then return end
  pend(target, { 'z', mode == 'd' and NOW + ms or math.max(ms, NOW), NOW_US, head })
end

function ops.w()
  local target, timeout, name, prefix, path, head, reg =
    ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  at = at + 8
  if known(target) then return end
  pend(target, { 'w', NOW + timeout, reg == '' and NOW_US or tonumber(reg), head, name, prefix, path })
  redis.call('ZADD', k_waits(name), 0, prefix .. run .. ':' .. target)
  redis.call('HINCRBY', k_wait_paths(name), path, 1)
  -- It also asks for events that came before it: a coordinator looks into the recent ones, however this process fares.
  if reg ~= '' then
    redis.call('XADD', k_events(), '*', 'k', 'l', 'i', '', 'n', name, 't', digits(NOW_US), 'd', run .. ':' .. target, 'x', '')
  end
end

function ops.g()
  local target, timeout, head = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  at = at + 4
  if known(target) then return end
  pend(target, { 'g', NOW + timeout, NOW_US, head })
end

function ops.i()
  local target, timeout, head, encoded, entropy, extra, cancel =
    ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  at = at + 8
  if known(target) then return end
  pend(target, { 'i', NOW + timeout, NOW_US, head, cancel })
  redis.call('XADD', k_events(), '*', 'k', 'v', 'i', ulid_time(NOW) .. entropy, 'n', 'inngest/function.invoked', 't', digits(NOW_US),
    'd', encoded, 'x', extra)
end

function ops.p()
  local target, head = ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  if known(target) then return end
  pend(target, { 'P', 0, NOW_US, head })
  local f = redis.call('HMGET', key, 'f', 'k', 'a', 't')
  enqueue(run .. ':' .. target, f[1], f[2] or '', f[3], true, f[4])
end

function ops.x()
  local target = ARGV[at + 1]
  at = at + 2
  local p = redis.call('HGET', key, 'p:' .. target)
  if not p then return end
  drop(run, target, cmsgpack.unpack(p))
  np = np - 1
  -- A planned step that runs just now: its worker is fenced off.
  if redis.call('HDEL', key, 'l:' .. target) == 1 then
    redis.call('ZREM', k_leases(), run .. ':' .. target)
    if v[9] then vacate(run .. ':' .. target, v[8], v[9]) end
  end
end

function ops.m()
  put('pm', ARGV[at + 1])
  at = at + 2
end

while at <= #ARGV do
  ops[ARGV[at]]()
end

if clause == 'N' then
  if np ~= tonumber(v[5] or '0') then put('np', np) end
  flush()
  return { 'OK', dv }
end

local function release(reason)
  local history = redis.call('HGET', key, 'h')
  put('h', log(key, history, clause .. NOW .. ' ' .. reason .. sfx))
  -- An absent field saves some sixty bytes a parked run.
  redis.call('HDEL', key, 'l' .. sfx, 'su' .. sfx)
  put('lt' .. sfx, token)
  put('np', np)
  redis.call('ZREM', k_leases(), run .. sfx)
  if v[9] then vacate(run .. sfx, v[8], v[9]) end
end

local clauses = {}

function clauses.F()
  local f = redis.call('HMGET', key, 'ne', 'pa')
  if ARGV[9] ~= '' then put('t:' .. step, ARGV[9]) end
  release(ARGV[7])
  -- What others of the run hold is found by its hash: this entry's own lease must not be among it.
  if np > 0 or step ~= '' or #set > 1000 then flush() end
  finish(run, ARGV[7], ARGV[8], { st = st, np = tostring(np), ne = f[1], pa = f[2], distributed = step ~= '' }, set)
  return { 'OK', dv }
end

function clauses.S()
  local stop = dv ~= seen and 'AGAIN' or np == 0 and 'STUCK'
  if stop then
    if np ~= tonumber(v[5] or '0') then put('np', np) end
    flush()
    return { stop, dv }
  end
  release('')
  put('rs', 'p')
  flush()
  redis.call('HDEL', key, 'w')
  return { 'OK', dv }
end

function clauses.R()
  release(ARGV[8] ~= '' and 'retry' or '')
  if ARGV[8] ~= '' then put('t:' .. step, ARGV[8]) end
  put('cr' .. sfx, '0')
  local due = NOW + tonumber(ARGV[7])
  if step == '' then
    put('rs', 'd')
    put('qa', due)
  end
  flush()
  schedule(run .. sfx, due)
  return { 'OK', dv }
end

function clauses.Y()
  local f = redis.call('HMGET', key, 'f', 'k', 'a', 't')
  release(ARGV[7])
  if step == '' then put('rs', 'q') end
  put('qa', NOW)
  flush()
  enqueue(run .. sfx, f[1], f[2] or '', f[3], true, f[4])
  return { 'OK', dv }
end

-- A planned step is done: the root may go on, unless it asked to be woken once, by the last of the round.
function clauses.D()
  release('')
  put('dv', dv + 1)
  flush()
  if redis.call('HGET', key, 'pm') ~= 'w' or np == 0 then wake_run(run) end
  return { 'OK', dv }
end

return clauses[clause]()
