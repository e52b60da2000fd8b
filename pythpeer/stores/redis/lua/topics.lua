-- The logs of one service, one for each account. If its ids are the service's, the names of streams
-- share their positions.
--
-- KEYS: the set of their topics. ARGV: topics to add.
-- Returns all topics of the set.

if #ARGV > 0 then redis.call('SADD', KEYS[1], unpack(ARGV)) end
return redis.call('SMEMBERS', KEYS[1])
