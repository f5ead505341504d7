-- recent.lua  A page of the kept events of a name, in the order in which they were accepted.
-- KEYS root
-- ARGV offset age name since after
-- since (us) is the earliest accept time; after the last event of the page before, or ''. Returns events as they were kept; a page is cut,
-- after its first, when it has 1 MiB, so only an empty one is the last.
--- include time
local key, after = k_recent(ARGV[3]), ARGV[5]
local rank = after ~= '' and redis.call('ZRANK', key, after)
local from
if rank then
  from = rank + 1
else
  -- When `after` is gone, so is what came before it.
  local since = math.max(tonumber(ARGV[4]), NOW_US - tonumber(ARGV[2]) * 1000)
  from = redis.call('ZCOUNT', key, '-inf', '(' .. digits(since))
end
local out, size = {}, 0
for at = from, from + 99 do
  local blob = redis.call('ZRANGE', key, at, at)[1]
  if not blob then break end
  out[#out + 1] = blob
  size = size + #blob
  if size > 1048576 then break end
end
return out
