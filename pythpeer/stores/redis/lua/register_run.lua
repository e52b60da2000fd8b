-- Stores the id of the server's run, and since when it runs if it is a new one.
--
-- After a restart or a failover the tokens of requests before it are unknown, see bucket.lua.
--
-- KEYS: the server's run. ARGV: the id of its present run.

if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then
  local now = string.format('%.0f', store_time(KEYS[1]))
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'since', now)
end
