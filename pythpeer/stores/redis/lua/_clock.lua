-- The beginning of each script: the time of the store, in microseconds.
--
-- It is the time of the server's clock, except that it never goes back: if the clock was set back,
-- the time of the store continues from where it was. SERVER keeps for this, besides "run" and
-- "since" (see register_run.lua):
--   clock   the time of the store, as it was at some recent moment
--   offset  by how much the time of the store is ahead of the server's clock; 0 if missing
-- With `read_only` nothing is stored.

local CLOCK_RESOLUTION = 100000  -- how far the stored time may lag behind, to save writes

local function store_time(server, read_only)
  local time = redis.call('TIME')
  local kept = redis.call('HMGET', server, 'clock', 'offset')
  local last, offset = tonumber(kept[1] or '0') or 0, tonumber(kept[2] or '0') or 0
  local now = time[1] * 1000000 + time[2] + offset
  if now < last then
    if not read_only then
      redis.call('HSET', server, 'offset', string.format('%.0f', offset + last - now))
    end
    return last
  end
  if now > last + CLOCK_RESOLUTION and not read_only then
    redis.call('HSET', server, 'clock', string.format('%.0f', now))
  end
  return now
end
