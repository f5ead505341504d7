-- The last 16 characters of a run's id on shard 0, as ids.py has them (`run_entropy`): 14 of SHA-1 over its causes, 2 of the shard.
--- include ulid
local function run_entropy(event, cause)
  local hex, out = redis.sha1hex(event .. '\0' .. cause), {}
  for i = 0, 3 do
    -- Five hex digits are four of base 32.
    local bits = tonumber(string.sub(hex, i * 5 + 1, i * 5 + 5), 16)
    for j = 4, 1, -1 do
      local d = bits % 32
      out[i * 4 + j] = string.sub(CROCKFORD, d + 1, d + 1)
      bits = (bits - d) / 32
    end
  end
  return table.concat(out, '', 1, 14) .. '00'
end
