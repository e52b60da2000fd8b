-- What every script about a log begins with.
--
-- Times are the server's own, in microseconds. Ids are numbers here, and `<id>-0` in the stream.
-- An entry is {"<id>-0", {"after", n, ["gap", "1",] ["item", json]}} wherever it is kept.

local STREAM, META, LINKS, LATE, LATE_IDS, LATE_ORDER = unpack(KEYS, 1, 6)
local SEEN, ANNOUNCED, ALIVE, DEATHS = unpack(KEYS, 7, 10)

-- How far the numbers of a log that lost its end jump: beyond whatever anybody has seen of it.
local JUMP = 1000000

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function whole(number)
  return string.format('%.0f', number)
end

local function number_of(id)
  return tonumber(string.match(id, '^%d+'))
end

-- The value of a name in a flat list of names and values.
local function field(list, name)
  for index = 1, #list, 2 do
    if list[index] == name then return list[index + 1] end
  end
end

local function alive(who)
  local score = redis.call('ZSCORE', ALIVE, who)
  return score and tonumber(score) > now()
end

local function live(who, term)
  redis.call('ZADD', ALIVE, whole(now() + term), who)
end

-- The highest id that the log ever had.
local function head()
  local info = redis.pcall('XINFO', 'STREAM', STREAM)
  return info.err and 0 or number_of(field(info, 'last-generated-id'))
end

-- The same for somebody who knows that it reached to `known` once. If it does not any more, the
-- server has lost the end of it. What the service hands out twice is simply asked for again; what
-- it does not is looked for in its history, and numbered beyond all that readers have passed.
local function head_since(known, consumed)
  local last = head()
  if not consumed or last >= known then return last end
  last = known + JUMP
  redis.call('XADD', STREAM, whole(last) .. '-0', 'after', '0')
  redis.call('XDEL', STREAM, whole(last) .. '-0')
  local lost = redis.call('HINCRBY', META, 'announcements', 1)
  redis.call('HSET', ANNOUNCED, lost, '0 nobody 0')
  return last
end

local function entry(id, after, gap, item)
  local fields = {'after', whole(after)}
  if gap then
    fields[3], fields[4] = 'gap', '1'
  end
  if item then
    fields[#fields + 1] = 'item'
    fields[#fields + 1] = item
  end
  return {whole(id) .. '-0', fields}
end

local function link_of(found)
  return tonumber(found[2][2]), found[2][3] == 'gap'
end

-- Give entries the links that reach further back than those they came with.
local function relinked(entries)
  if redis.call('EXISTS', LINKS) == 0 then return entries end
  for index, found in ipairs(entries) do
    local id = number_of(found[1])
    local link = redis.call('HGET', LINKS, whole(id))
    if link then
      local after, gap = string.match(link, '(%d+) (%d)')
      entries[index] = entry(id, tonumber(after), gap == '1', field(found[2], 'item'))
    end
  end
  return entries
end

-- What came with an id below those that the stream had: "after gap head-then [item]".
local function late_entry(id)
  local kept = redis.call('HGET', LATE, id)
  if not kept then return nil end
  local after, gap, came, item = string.match(kept, '^(%d+) (%d) (%d+) ?(.*)$')
  if item == '' then item = nil end
  return entry(tonumber(id), tonumber(after), gap == '1', item), tonumber(came)
end

local function keep_late(id, after, gap, came, item)
  local kept = whole(after) .. (gap and ' 1 ' or ' 0 ') .. whole(came)
  redis.call('HSET', LATE, whole(id), item and kept .. ' ' .. item or kept)
end

local function late_after(place, limit)
  if redis.call('EXISTS', LATE_IDS) == 0 then return {} end
  local range = {'ZRANGEBYSCORE', LATE_IDS, '(' .. whole(place), '+inf'}
  if limit then
    range[5], range[6], range[7] = 'LIMIT', 0, limit
  end
  return redis.call(unpack(range))
end

local function stream_after(place, limit)
  local range = {'XRANGE', STREAM, '(' .. whole(place) .. '-0', '+'}
  if limit then
    range[5], range[6] = 'COUNT', limit
  end
  return relinked(redis.call(unpack(range)))
end

-- Entries from wherever they are kept, in the order of their ids.
local function entries_after(place, limit)
  local stream, late = stream_after(place, limit), late_after(place, limit)
  if #late == 0 then return stream end
  local merged, s, l = {}, 1, 1
  while (stream[s] or late[l]) and not (limit and #merged >= limit) do
    if stream[s] and not (late[l] and tonumber(late[l]) < number_of(stream[s][1])) then
      merged[#merged + 1] = stream[s]
      s = s + 1
    else
      merged[#merged + 1] = late_entry(late[l])
      l = l + 1
    end
  end
  return merged
end

-- The last delivered id of the group that the readers of a name are, and how many items they have
-- in hand; nothing if the log does not know the name.
local function group(name)
  local groups = redis.pcall('XINFO', 'GROUPS', STREAM)
  if groups.err then return nil end
  for _, found in ipairs(groups) do
    if field(found, 'name') == name then
      return number_of(field(found, 'last-delivered-id')), field(found, 'pending')
    end
  end
end

local function make_group(name, place)
  redis.call('XGROUP', 'CREATE', STREAM, name, whole(place) .. '-0', 'MKSTREAM')
end

local function move_group(name, place)
  redis.call('XGROUP', 'SETID', STREAM, name, whole(place) .. '-0')
end

-- Where a name catches up on what the stream lacks, if it does.
local function late_place(name)
  local place = redis.call('HGET', META, 'late:' .. name)
  return place and tonumber(place)
end

local function epoch(name)
  return tonumber(redis.call('HGET', META, 'epoch:' .. name) or '0')
end

-- The id up to which everything was acknowledged.
local function place_of(name)
  local delivered, pending = group(name)
  if not delivered then return nil end
  local place = late_place(name) or delivered
  if pending > 0 then
    place = math.min(place, number_of(redis.call('XPENDING', STREAM, name)[2]) - 1)
  end
  return place
end

-- The same place by the chain: right before what somebody has in hand.
local function place_in_chain(name)
  local place, first = place_of(name), redis.pcall('XPENDING', STREAM, name)[2]
  if not first then return place end
  local found = relinked(redis.call('XRANGE', STREAM, first, first))[1]
  return found and math.min(place, (link_of(found))) or place
end

local function note(what, place)
  if place > tonumber(redis.call('HGET', META, what) or '0') then
    redis.call('HSET', META, what, whole(place))
  end
end

-- Acknowledge `ids` that were handed out, and all up to `place`, for readers of a name that have
-- not been sent elsewhere since.
local function acknowledge(name, since, place, ids)
  if not place and #ids == 0 or since and since ~= epoch(name) then return end
  local delivered = group(name)
  if not delivered then
    if not place then return end
    make_group(name, place)
    delivered = place
  end
  if #ids > 0 then redis.call('XACK', STREAM, name, unpack(ids)) end
  if place then
    local late = late_place(name)
    if late then
      redis.call('HSET', META, 'late:' .. name, whole(math.max(late, place)))
    elseif place > delivered then
      move_group(name, place)
    end
  end
  note('acknowledged', place_of(name))
end

local function optional(text)
  if text ~= '' then return tonumber(text) end
end

local function rest(first)
  local values = {}
  for index = first, #ARGV do values[#values + 1] = ARGV[index] end
  return values
end
