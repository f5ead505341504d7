-- What a run holds beside its own hash and queues, by the flags of its field `fx`: c<n> cancel registrations · t timeouts · g gates of run
-- level and the singleton's lock. Called once, in the write that ends the run; gathered (lib/gather.lua).
--- include ready, gather, limits/singleton, limits/cancel, limits/timeouts
local function release_run(run, fx, fn, key)
  local cancels = string.match(fx, 'c(%d+)')
  if cancels then release_cancels(run, tonumber(cancels)) end
  if string.find(fx, 't', 1, true) then release_timeouts(run) end
  if string.find(fx, 'g', 1, true) then
    release_singleton(run)
    if key then vacate_run(run, fn, key) end
  end
end
