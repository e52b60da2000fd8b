-- Say who is alive, and hear how often somebody died.
--
-- KEYS: those who are alive, by until when they count as such; the count of deaths.
-- ARGV: term in microseconds, how many are gone, their names, then the names of the living.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local living = 3 + ARGV[2]
for index = 3, living - 1 do
  if redis.call('ZREM', KEYS[1], ARGV[index]) == 1 then redis.call('INCR', KEYS[2]) end
end
for index = living, #ARGV do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[1]), ARGV[index])
end
local dead = redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if dead > 0 then redis.call('INCRBY', KEYS[2], dead) end
return tonumber(redis.call('GET', KEYS[2]) or '0')
