-- Where a run lives, and what this shard owes others.
-- Two-character shard at the end of a run id; this shard's own, taken from the root `{ns:shard}`.
local B32 = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
local function shard_of(run)
  local hi = string.find(B32, string.sub(run, 25, 25), 1, true) - 1
  local lo = string.find(B32, string.sub(run, 26, 26), 1, true) - 1
  return hi * 32 + lo
end
local HERE = tonumber(string.match(ROOT, ':(%d+)}$'))

local function owe(kind, a, b, c, d)
  redis.call('XADD', k_outbox(), '*', 'k', kind, 'a', a, 'b', b, 'c', c, 'd', d)
end
