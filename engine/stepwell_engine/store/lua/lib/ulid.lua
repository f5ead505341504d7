-- The first ten characters of a ULID: 48 bits of ms in Crockford's base 32 (https://github.com/ulid/spec).
local CROCKFORD = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
local function ulid_time(ms)
  local out = {}
  for i = 10, 1, -1 do
    local d = ms % 32
    out[i] = string.sub(CROCKFORD, d + 1, d + 1)
    ms = (ms - d) / 32
  end
  return table.concat(out)
end
