-- Extends the life of owners, and removes dead ones.
--
-- KEYS: the owners that are alive, by the time at which they expire; the number of deaths; the server.
-- ARGV: session timeout in microseconds, the salt of the store (the server may have lost it), how
--       many owners are dead, their names, then the names of those that are alive.
-- Returns the number of deaths so far, the time of the store, its offset and its steps.

local now, offset = store_time(KEYS[3], KEYS[1])
local first_alive = 4 + ARGV[3]
for index = 4, first_alive - 1 do
  if redis.call('ZREM', KEYS[1], ARGV[index]) == 1 then count_deaths(KEYS[2], 1) end
end
for index = first_alive, #ARGV do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[1]), ARGV[index])
end
local expired = redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if expired > 0 then count_deaths(KEYS[2], expired) end
knows_salt(KEYS[3], ARGV[2])
return {count_deaths(KEYS[2], 0), now, offset, known_steps(KEYS[3])}
