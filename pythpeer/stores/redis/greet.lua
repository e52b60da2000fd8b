-- Take note of which server this is: since when everything that came before is uncertain.
--
-- KEYS: what is known of the server. ARGV: its run's id, which a restart or a failover changes.

if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then
  local time = redis.call('TIME')
  local now = string.format('%.0f', time[1] * 1000000 + time[2])
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'since', now)
end
