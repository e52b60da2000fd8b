-- Stores the id of the server's run, and since when it runs if it is a new one.
--
-- After a restart or a failover the tokens of requests before it are unknown, see bucket.lua.
--
-- Stores the salt of the store's fingerprints, if it has none.
--
-- KEYS: the server's run. ARGV: the id of its present run, a salt, and "1" if the client has it from
--       the server, from an earlier connection.
-- Returns the salt, and whether keys of version 0.1 have been renamed ("1" if so).

if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then
  local now = string.format('%.0f', store_time(KEYS[1]))
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'since', now)
end
if ARGV[3] == '1' then knows_salt(KEYS[1], ARGV[2]) end
local stored = redis.call('HMGET', KEYS[1], 'salt', 'renamed')
if not stored[1] then redis.call('HSET', KEYS[1], 'salt', ARGV[2]) end
return {stored[1] or ARGV[2], stored[2] or '0'}
