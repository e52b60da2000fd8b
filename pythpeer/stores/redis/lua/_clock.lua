-- The beginning of each script: the time of the store, in microseconds.
--
-- It is the time of the server's clock, except that it never goes back: if the clock was set back,
-- the time of the store continues from where it was. SERVER keeps for this, besides "run" and
-- "since" (see register_run.lua):
--   clock   the time of the store at some recent moment
--   offset  by how much the time of the store is ahead of the server's clock; 0 if missing
--   steps   how often bucket.lua has found that the clock was set forward; 0 if missing
--   salt    the salt of the store, with which the names of keys are made
--   emptied when a program noticed that the server has lost everything; missing if it has not

local CLOCK_RESOLUTION = 100000  -- how far the stored time may lag behind, to save writes
local MAX_SILENCE = 900000       -- owners that are alive run scripts more often

-- Returns the time, and the offset. Without `alive`, the key of the owners, nothing is stored.
--
-- If no script ran for a while, the server stood still or its clock was set forward, or no owner is
-- alive. No owner could report then, so that time is not part of its session timeout.
local function store_time(server, alive)
  local time = redis.call('TIME')
  local kept = redis.call('HMGET', server, 'clock', 'offset')
  local last, offset = tonumber(kept[1] or '') or 0, tonumber(kept[2] or '') or 0
  local now = time[1] * 1000000 + time[2] + offset
  if now < last then
    offset, now = offset + last - now, last
    if alive then redis.call('HSET', server, 'offset', string.format('%.0f', offset)) end
  elseif alive and now > last + CLOCK_RESOLUTION then
    redis.call('HSET', server, 'clock', string.format('%.0f', now))
    if last > 0 and now > last + MAX_SILENCE then
      local owners = redis.call('ZRANGE', alive, string.format('(%.0f', last), '+inf', 'BYSCORE')
      for _, owner in ipairs(owners) do
        redis.call('ZINCRBY', alive, string.format('%.0f', now - last), owner)
      end
    end
  end
  return now, offset
end

-- Returns since when the server runs, in microseconds, as text: `since` as it is stored, or the time
-- `now` where that is missing, or was written by another program.
local function known_start(server, since, now)
  if since and string.match(since, '^%d+$') then return since end
  since = string.format('%.0f', now)
  redis.call('HSET', server, 'since', since)
  return since
end

-- Returns whether a client knows the salt of the store, which `name` ends with. If the server has
-- another one, or none, it was emptied since the client registered, and only the client knows that.
local function knows_salt(server, name)
  local salt, stored = string.match(name, '[^:]+$'), redis.call('HGET', server, 'salt')
  if stored == salt then return true end
  redis.call('HSET', server, 'emptied', string.format('%.0f', store_time(server)))
  if not stored then redis.call('HSET', server, 'salt', salt) end
  return not stored
end
