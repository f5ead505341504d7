-- forget_consumers.lua  Delete consumers of both streams that are silent and owe nothing: one that owed entries would take them along.
-- KEYS root
-- ARGV group me idle_ms
-- Looked at and deleted in one write, so that none can read entries in between. Returns how many were deleted.
local count = 0
for _, stream in ipairs({ k_events(), k_outbox() }) do
  local rows = redis.pcall('XINFO', 'CONSUMERS', stream, ARGV[1])
  if not rows.err then
    for _, row in ipairs(rows) do
      local c = {}
      for i = 1, #row, 2 do c[row[i]] = row[i + 1] end
      if c.pending == 0 and c.idle > tonumber(ARGV[3]) and c.name ~= ARGV[2] then
        redis.call('XGROUP', 'DELCONSUMER', stream, ARGV[1], c.name)
        count = count + 1
      end
    end
  end
end
return count
