-- What is in a log, for whoever watches. Changes nothing.
--
-- ARGV: how many of the last entries to tell.
-- Returns the head, how many entries there are, whether somebody leads, how many reads are announced,
-- then for each name: it, its place, and how many entries are behind that; then the last entries,
-- those of the stream and those that came late apart.

local latest = tonumber(ARGV[1])

local function led()
  local leads = redis.call('HMGET', META, 'leader', 'leads until')
  return leads[1] and tonumber(leads[2]) > now() and alive(leads[1]) and 1 or 0
end

local function lag(place)
  local behind = #late_after(place)
  while true do
    local some = redis.call('XRANGE', STREAM, '(' .. whole(place) .. '-0', '+', 'COUNT', 1000)
    behind = behind + #some
    if #some < 1000 then return behind end
    place = number_of(some[#some][1])
  end
end

local function names()
  local names, groups = {}, redis.pcall('XINFO', 'GROUPS', STREAM)
  if groups.err then return names end
  for index, found in ipairs(groups) do
    local name = field(found, 'name')
    local place = place_in_chain(name)
    names[index] = {name, place, lag(place)}
  end
  return names
end

local stream, late = {}, {}
if latest > 0 then
  stream = redis.call('XREVRANGE', STREAM, '+', '-', 'COUNT', latest)
  for index, id in ipairs(redis.call('ZREVRANGE', LATE_IDS, 0, latest - 1)) do
    late[index] = late_entry(id)
  end
end
local length = redis.call('XLEN', STREAM) + redis.call('LLEN', LATE_ORDER)
return {head(), length, led(), redis.call('HLEN', ANNOUNCED), names(), stream, late}
