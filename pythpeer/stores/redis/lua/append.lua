-- Appends what is new among entries, and completes fetch intents.
--
-- ARGV: what the client knows, the fetch time, the number of entries to keep or "", owner, the head
--       that the log must have or "", the number of completed fetch intents, their numbers, then
--       for each new entry either
--         "n", id, after, gap, item                        with an id of the service
--         "l", identity, max copies, from history, item, as duplicate      without an id
--       where items are JSON, or "" if undecodable.
-- Returns what the client knows from now on, and the indices (from 0) of the entries that were new;
-- nothing, without any change, if the log does not have the required head. If the response was lost
-- and the call is repeated it returns the same: KEYS[13] keeps it for some minutes.

local DONE = KEYS[13]
local known, fetch_time, owner = ARGV[1], tonumber(ARGV[2]), ARGV[4]
local max_length = optional(ARGV[3])

local done = redis.call('GET', DONE)
if done then return cjson.decode(done) end

local last = head_since(known, fetch_time)
if optional(ARGV[5]) and optional(ARGV[5]) ~= last then return false end
local added = {}

-- No gap is better than a gap, and of two alike the smaller `after` is better.
local function improve_link(id, entry, after, gap)
  local stored, stored_gap = link_of(entry)
  if stored_gap and not gap or stored_gap == gap and after < stored then
    local _, arrived = out_of_order_entry(fmt_int(id))
    if arrived then
      keep_out_of_order(id, after, gap, arrived, field(entry[2], 'item'))
    else
      redis.call('HSET', LINKS, fmt_int(id), fmt_int(after) .. (gap and ' 1' or ' 0'))
    end
  end
end

local function add(id, after, gap, item)
  if id > last then
    local new = make_entry(id, after, gap, item)
    redis.call('XADD', STREAM, new[1], unpack(new[2]))
    last = id
    return true
  end
  local key = fmt_int(id)
  local stored = relinked(redis.call('XRANGE', STREAM, key, key))[1] or out_of_order_entry(key)
  if stored then
    improve_link(id, stored, after, gap)
    return false
  end
  keep_out_of_order(id, after, gap, last, item)
  redis.call('ZADD', OUT_OF_ORDER_IDS, key, key)
  redis.call('RPUSH', ARRIVAL_ORDER, id)
  return true
end

-- The same decision as assign_id in stores/new_entries.py.
local function add_without_id(identity, max_copies, from_history, item, as_duplicate)
  local seen, possible_duplicates = 0, 0
  local stored = redis.call('HGET', SEEN, identity)
  if stored then
    local first, second = string.match(stored, '(%d+) (%d+)')
    seen, possible_duplicates = tonumber(first), tonumber(second)
  end
  if max_copies > 0 and seen >= max_copies then return false end
  if from_history then
    seen, possible_duplicates = seen + 1, possible_duplicates + 1
  elseif possible_duplicates > 0 and max_copies == 0 then
    if not as_duplicate then return false end
    possible_duplicates = possible_duplicates - 1
    item = as_duplicate
  else
    seen = seen + 1
  end
  redis.call('HSET', SEEN, identity, seen .. ' ' .. possible_duplicates)
  return add(last + 1, last, false, item)
end

local function item_of(text)
  if text ~= '' then return text end
end

local index = 7 + ARGV[6]
local batch = 0
while index <= #ARGV do
  local is_new
  if ARGV[index] == 'n' then
    local id, after, gap, item = unpack(ARGV, index + 1, index + 4)
    is_new = add(tonumber(id), tonumber(after), gap == '1', item_of(item))
    index = index + 5
  else
    local identity, max_copies, from_history, item, as_duplicate =
      unpack(ARGV, index + 1, index + 5)
    is_new = add_without_id(identity, tonumber(max_copies), from_history == '1', item_of(item),
      item_of(as_duplicate))
    index = index + 6
  end
  if is_new then added[#added + 1] = batch end
  batch = batch + 1
end

-- Trimming deletes the entries that arrived first, but none of the last batch. Where reads are
-- destructive it only deletes what was acknowledged and is not pending for any reader. It deletes a
-- limited number at a time, because there can be many without an acknowledgement.

local MAX_TRIMMED = 1000

local function max_deletable()
  local position = tonumber(redis.call('HGET', META, 'acknowledged') or '0')
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', STREAM)) do
    if field(info, 'pending') > 0 then
      local first = redis.call('XPENDING', STREAM, field(info, 'name'))[2]
      position = math.min(position, number_of(first) - 1)
    end
  end
  return position
end

local function trim_stream(length)
  local stored = redis.call('XLEN', STREAM)
  local excess = math.min(stored - length, MAX_TRIMMED + batch)
  if excess <= 0 then return end
  if fetch_time > 0 then
    local deletable, max_id = 0, max_deletable()
    for _, entry in ipairs(redis.call('XRANGE', STREAM, '-', '+', 'COUNT', excess)) do
      if number_of(entry[1]) > max_id then break end
      deletable = deletable + 1
    end
    excess = deletable
  end
  redis.call('XTRIM', STREAM, 'MAXLEN', stored - excess)
end

local function trim_out_of_order()
  local id = redis.call('LPOP', ARRIVAL_ORDER)
  redis.call('HDEL', OUT_OF_ORDER, id)
  redis.call('ZREM', OUT_OF_ORDER_IDS, id)
end

local function trim(length)
  while true do
    local in_order, out_of_order = redis.call('XLEN', STREAM), redis.call('LLEN', ARRIVAL_ORDER)
    if out_of_order == 0 then return trim_stream(length) end
    if in_order + out_of_order <= length then return end
    local first = redis.call('XRANGE', STREAM, '-', '+', 'COUNT', 1)[1]
    local _, arrived = out_of_order_entry(redis.call('LINDEX', ARRIVAL_ORDER, 0))
    if first and number_of(first[1]) <= arrived then
      redis.call('XTRIM', STREAM, 'MAXLEN', in_order - 1)
    else
      trim_out_of_order()
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

if max_length and #added > 0 then
  trim(math.max(max_length, batch))
  forget_links()
end

-- Those of other owners that can still take effect are only marked as completed.
for arg = 7, 6 + ARGV[6] do
  local fetch = redis.call('HGET', FETCHES, ARGV[arg])
  if fetch then
    local ends, fetch_owner = string.match(fetch, '(%d+) (%S+)')
    if tonumber(ends) <= now() or fetch_owner == owner then
      redis.call('HDEL', FETCHES, ARGV[arg])
    else
      redis.call('HSET', FETCHES, ARGV[arg], ends .. ' ' .. fetch_owner .. ' 1')
    end
  end
end

table.insert(added, 1, known_from(last))
redis.call('SET', DONE, cjson.encode(added), 'PX', 600000)
return added
