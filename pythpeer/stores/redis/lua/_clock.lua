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

-- What SERVER keeps. Each script reads it once; `keep` changes it here as well.
local kept

local function read_kept(server)
  if kept then return kept end
  local values = redis.call('HMGET', server, 'clock', 'offset', 'since', 'steps', 'salt')
  kept = {clock = values[1], offset = values[2], since = values[3], steps = values[4], salt = values[5]}
  return kept
end

local function keep(server, field, value)
  redis.call('HSET', server, field, value)
  kept[field] = value
end

-- Returns the time, and the offset. Without `alive`, the key of the owners, nothing is stored.
--
-- If no script ran for a while, the server stood still or its clock was set forward, or no owner is
-- alive. No owner could report then, so that time is not part of its session timeout.
local function store_time(server, alive)
  local time, state = redis.call('TIME'), read_kept(server)
  local last, offset = tonumber(state.clock or '') or 0, tonumber(state.offset or '') or 0
  local now = time[1] * 1000000 + time[2] + offset
  if now < last then
    offset, now = offset + last - now, last
    if alive then keep(server, 'offset', string.format('%.0f', offset)) end
  elseif alive and now > last + CLOCK_RESOLUTION then
    keep(server, 'clock', string.format('%.0f', now))
    if last > 0 and now > last + MAX_SILENCE then
      local owners = redis.call('ZRANGE', alive, string.format('(%.0f', last), '+inf', 'BYSCORE')
      for _, owner in ipairs(owners) do
        redis.call('ZINCRBY', alive, string.format('%.0f', now - last), owner)
      end
    end
  end
  return now, offset
end

-- Returns since when the server runs, in microseconds, as text: the time `now` where that is not stored,
-- or was written by another program.
local function known_start(server, now)
  local since = read_kept(server).since
  if not (since and string.match(since, '^%d+$')) then
    since = string.format('%.0f', now)
    keep(server, 'since', since)
  end
  return since
end

local function known_steps(server)
  return tonumber(read_kept(server).steps or '') or 0
end

-- Adds to the number of deaths, and returns it. What another program has written there counts as 0.
local function count_deaths(deaths, added)
  local stored = redis.pcall('GET', deaths)
  local is_number = type(stored) == 'string' and #stored < 16 and string.match(stored, '^%d+$')
  local count = (is_number and tonumber(stored) or 0) + added
  if added > 0 then redis.call('SET', deaths, string.format('%.0f', count)) end
  return count
end

-- Returns whether a client knows the salt of the store, which `name` ends with. If the server has
-- another one, or none, it was emptied since the client registered, and only the client knows that.
local function knows_salt(server, name)
  local salt, stored = string.match(name, '[^:]+$'), read_kept(server).salt
  if stored == salt then return true end
  redis.call('HSET', server, 'emptied', string.format('%.0f', store_time(server)))
  if not stored then keep(server, 'salt', salt) end
  return not stored
end
