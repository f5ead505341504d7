-- set_aside.lua  An entry of the outbox that can't be delivered as things are is kept apart, where it holds up no other and no sweep.
-- KEYS root
-- ARGV group entry kept
-- kept: the entry and what is wrong with it. Twice is as good as once.
redis.call('HSET', k_undelivered(), ARGV[2], ARGV[3])
redis.call('XDEL', k_outbox(), ARGV[2])
redis.call('XACK', k_outbox(), ARGV[1], ARGV[2])
return 1
