-- candidates.lua  Waits, and cancel registrations (steps `!<i>`), found by name, path and value, for the caller to check in full.
-- KEYS root
-- ARGV limit [name prefix after]...
-- after is the last member of the page before, or ''. Returns, for each, {more, [member, record, event blob of the run]...}; more = 1 when the
-- page was cut: at `limit` rows, and after its first when the reply has 1 MiB.
local out, size, limit = {}, 0, tonumber(ARGV[1])
for i = 2, #ARGV, 3 do
  local name, prefix, after = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local from = after == '' and '[' .. prefix or '(' .. after
  local members = redis.call('ZRANGEBYLEX', k_waits(name), from, '(' .. prefix .. '\255', 'LIMIT', 0, limit)
  local found = { #members == limit and 1 or 0 }
  for _, member in ipairs(members) do
    local item = string.sub(member, #prefix + 1)
    local step = string.sub(item, 28)
    local f = redis.call('HMGET', k_run(string.sub(item, 1, 26)), string.sub(step, 1, 1) == '!' and 'cn:' .. string.sub(step, 2) or 'p:' .. step, 'e')
    if f[1] then
      found[#found + 1] = { member, f[1], f[2] }
      size = size + #f[1] + #f[2]
      if size > 1048576 then
        found[1] = 1
        break
      end
    end
  end
  out[#out + 1] = found
end
return out
