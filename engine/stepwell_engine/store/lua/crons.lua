-- crons.lua  What is handled of the crons of functions, and the time.
-- KEYS root
-- ARGV offset [fn]...
-- Returns {now in ms, state...}: for each function its hash, flat, or the error of reading it: one that can't be read keeps no other back.
--- include time
local out = { NOW }
for i = 2, #ARGV do out[i] = redis.pcall('HGETALL', k_cron(ARGV[i])) end
return out
