-- Append what is new among drafts, and end the announcements that were settled by them.
--
-- ARGV: known head, whether the service forgets ("1"), length to keep or "", who,
--       how many are settled, their numbers, then the drafts:
--       "n", id, after, gap, item            with the service's number
--       "l", key, copies, history, item, again   numbered here
--       where items are JSON, or "" for one that could not be decoded.
-- Returns the head, and which drafts (counted from 0) were new. A second call for the same drafts,
-- because the answer to the first was lost, gets the same answer: KEYS[11] remembers it.

local DONE = KEYS[11]
local known, consumed, length, who = tonumber(ARGV[1]), ARGV[2] == '1', optional(ARGV[3]), ARGV[4]

local before = redis.call('GET', DONE)
if before then return cjson.decode(before) end

local last = head_since(known, consumed)
local added = {}

-- That there is nothing between says more than not to know what there is; of two alike, the one
-- that reaches further back does.
local function relink(id, found, after, gap)
  local known, known_gap = link_of(found)
  if known_gap and not gap or known_gap == gap and after < known then
    local _, came = late_entry(whole(id))
    if came then
      keep_late(id, after, gap, came, field(found[2], 'item'))
    else
      redis.call('HSET', LINKS, whole(id), whole(after) .. (gap and ' 1' or ' 0'))
    end
  end
end

local function add(id, after, gap, item)
  if id > last then
    local made = entry(id, after, gap, item)
    redis.call('XADD', STREAM, made[1], unpack(made[2]))
    last = id
    return true
  end
  local key = whole(id)
  local found = relinked(redis.call('XRANGE', STREAM, key, key))[1] or late_entry(key)
  if found then
    relink(id, found, after, gap)
    return false
  end
  keep_late(id, after, gap, last, item)
  redis.call('ZADD', LATE_IDS, id, id)
  redis.call('RPUSH', LATE_ORDER, id)
  return true
end

local function number(key, copies, history, item, again)
  local seen, doubtful = 0, 0
  local before = redis.call('HGET', SEEN, key)
  if before then
    local first, second = string.match(before, '(%d+) (%d+)')
    seen, doubtful = tonumber(first), tonumber(second)
  end
  if copies > 0 and seen >= copies then return false end
  if history then
    doubtful = doubtful + 1
  elseif doubtful > 0 and copies == 0 then
    doubtful = doubtful - 1
    item = again
  end
  redis.call('HSET', SEEN, key, seen + 1 .. ' ' .. doubtful)
  return add(last + 1, last, false, item)
end

local function item_of(text)
  if text ~= '' then return text end
end

local position = 6 + ARGV[5]
local drafts = 0
while position <= #ARGV do
  local new
  if ARGV[position] == 'n' then
    local id, after, gap, item = unpack(ARGV, position + 1, position + 4)
    new = add(tonumber(id), tonumber(after), gap == '1', item_of(item))
    position = position + 5
  else
    local key, copies, history, item, again = unpack(ARGV, position + 1, position + 5)
    new = number(key, tonumber(copies), history == '1', item_of(item), item_of(again))
    position = position + 6
  end
  if new then added[#added + 1] = drafts end
  drafts = drafts + 1
end

-- What came first goes first, and no more than leaves room for a last batch of this size. Of what
-- the service forgets, only what was acknowledged, and is in nobody's hands.

local function unacknowledged()
  local place = tonumber(redis.call('HGET', META, 'acknowledged') or '0')
  for _, found in ipairs(redis.call('XINFO', 'GROUPS', STREAM)) do
    if field(found, 'pending') > 0 then
      local first = redis.call('XPENDING', STREAM, field(found, 'name'))[2]
      place = math.min(place, number_of(first) - 1)
    end
  end
  return place
end

local function trim_stream(most)
  local excess = redis.call('XLEN', STREAM) - most
  if consumed and excess > 0 then
    local free, allowed = 0, unacknowledged()
    for _, found in ipairs(redis.call('XRANGE', STREAM, '-', '+', 'COUNT', excess)) do
      if number_of(found[1]) > allowed then break end
      free = free + 1
    end
    most = most + excess - free
  end
  redis.call('XTRIM', STREAM, 'MAXLEN', most)
end

local function trim_late()
  local id = redis.call('LPOP', LATE_ORDER)
  redis.call('HDEL', LATE, id)
  redis.call('ZREM', LATE_IDS, id)
end

local function trim(most)
  while true do
    local length, late = redis.call('XLEN', STREAM), redis.call('LLEN', LATE_ORDER)
    if late == 0 then return trim_stream(most) end
    if length + late <= most then return end
    local first = redis.call('XRANGE', STREAM, '-', '+', 'COUNT', 1)[1]
    local _, came = late_entry(redis.call('LINDEX', LATE_ORDER, 0))
    if first and number_of(first[1]) <= came then
      redis.call('XTRIM', STREAM, 'MAXLEN', length - 1)
    else
      trim_late()
    end
  end
end

local function forget_links()
  local links = redis.call('HKEYS', LINKS)
  if #links == 0 then return end
  local first = redis.call('XRANGE', STREAM, '-', '+', 'COUNT', 1)[1]
  for _, id in ipairs(links) do
    if not first or tonumber(id) < number_of(first[1]) then redis.call('HDEL', LINKS, id) end
  end
end

if length and #added > 0 then
  trim(math.max(length, drafts))
  forget_links()
end

for index = 6, 5 + ARGV[5] do
  local told = redis.call('HGET', ANNOUNCED, ARGV[index])
  if told then
    local ends, whose = string.match(told, '(%d+) (%S+)')
    if tonumber(ends) <= now() or whose == who then
      redis.call('HDEL', ANNOUNCED, ARGV[index])
    else
      redis.call('HSET', ANNOUNCED, ARGV[index], ends .. ' ' .. whose .. ' 1')
    end
  end
end

table.insert(added, 1, last)
redis.call('SET', DONE, cjson.encode(added), 'PX', 60000)
return added
