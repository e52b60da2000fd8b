-- Returns the next items for one reader of a group, whose readers share the items of a name.
--
-- ARGV: what the client knows, the fetch time, name, consumer, its session timeout in
--       microseconds, limit, the position of the reader, the epoch of the name that it knows or "",
--       the number of its pending items that it has received, their ids, then what it acknowledges:
--       a position or "", and ids.
-- Returns a mode, the epoch, what the client knows from now on, the position of the group, and
-- entries. The modes:
--   "next"      the next items of the group, in the order of the log
--   "again"     items that were returned before: to a dead reader, or to this one in a response that
--               was lost
--   "catch up"  the stream lacks the next entry: all entries from there on, for this reader only
--   "wait"      the same, and another reader is replaying

local name, consumer = ARGV[3], ARGV[4]
local limit, position = tonumber(ARGV[6]), tonumber(ARGV[7])

local last = head_since(ARGV[1], tonumber(ARGV[2]))
if not group(name) then
  -- The server has lost it, and may have given the ids before the position to others.
  make_group(name, math.min(position, shared_up_to(known_run(ARGV[8]))))
end
local held, acks = {}, 10 + ARGV[9]
for index = 10, acks - 1 do held[ARGV[index] .. '-0'] = true end
acknowledge(name, ARGV[8], optional(ARGV[acks]), rest(acks + 1))
keep_alive(consumer, tonumber(ARGV[5]))
local delivered, pending = group(name)

local function result(mode, group_position, entries)
  return {mode, epoch(name), known_from(last), group_position, entries}
end

local function read_group()
  local reply = redis.call(
    'XREADGROUP', 'GROUP', name, consumer, 'COUNT', limit, 'STREAMS', STREAM, '>')
  if not reply then return {} end
  return reply[1][2]
end

-- Returns an entry without fields for an item that was trimmed while it was pending.
local function drop_trimmed(id)
  redis.call('XACK', STREAM, name, id)
  return {id, {}}
end

local function claim(ids)
  local entries, by_id = {}, {}
  for _, entry in ipairs(redis.call('XCLAIM', STREAM, name, consumer, 0, unpack(ids))) do
    if entry then by_id[entry[1]] = entry end
  end
  for index, id in ipairs(ids) do entries[index] = by_id[id] or drop_trimmed(id) end
  return entries
end

-- Returns the first pending ids of a consumer, except those of `held`.
local function pending_ids(owner, count)
  local ids = {}
  for _, item in ipairs(redis.call('XPENDING', STREAM, name, '-', '+', count, owner)) do
    if not held[item[1]] and #ids < limit then ids[#ids + 1] = item[1] end
  end
  return ids
end

-- Returns what this reader has not received, or else what a dead one has not acknowledged.
local function claim_undelivered()
  local dead
  for _, info in ipairs(redis.call('XPENDING', STREAM, name)[4] or {}) do
    local owner, count = info[1], tonumber(info[2])
    if owner == consumer then
      local ids = count > 0 and pending_ids(owner, ARGV[9] + limit) or {}
      if #ids > 0 then return claim(ids) end
    elseif not dead and is_owner(owner) and not alive(owner) then
      dead = owner
    end
  end
  if not dead then return {} end
  local ids = pending_ids(dead, limit)
  local entries = #ids > 0 and claim(ids) or {}
  if #ids < limit then redis.call('XGROUP', 'DELCONSUMER', STREAM, name, dead) end
  return entries
end

if pending > 0 then
  local entries = claim_undelivered()
  if #entries > 0 then return result('again', delivered, relinked(entries)) end
end

-- Returns the next entries of the stream, as far as they are linked and no entry that arrived out
-- of order belongs between them; nothing if the stream lacks the next entry.
local function read_linked(start)
  local entries = relinked(read_group())
  local out_of_order = tonumber(out_of_order_after(start, 1)[1] or math.huge)
  local linked, reached = 0, start
  for index, entry in ipairs(entries) do
    local id = number_of(entry[1])
    if link_of(entry) > reached or id > out_of_order then break end
    linked, reached = index, id
  end
  if linked == #entries then
    if linked == 0 and out_of_order < math.huge then return nil end
    return entries
  end
  for index = linked + 1, #entries do
    redis.call('XACK', STREAM, name, entries[index][1])
    entries[index] = nil
  end
  move_group(name, reached)
  if linked > 0 then return entries end
end

local function end_replay(at)
  redis.call('HDEL', META, 'late:' .. name, 'catcher:' .. name)
  move_group(name, at)
end

local replayed = replay_position(name)
if replayed then
  local replayer = redis.call('HGET', META, 'catcher:' .. name)
  if replayer and replayer ~= consumer and alive(replayer) then return result('wait', last, {}) end
  local following = entries_after(replayed, 1)[1]
  local joins_stream = not following or (link_of(following) <= replayed
    and redis.call('HEXISTS', OUT_OF_ORDER, fmt_int(number_of(following[1]))) == 0)
  if joins_stream then
    end_replay(replayed)
    delivered = replayed
  end
end
if not replay_position(name) then
  local entries = read_linked(delivered)
  if entries then return result('next', delivered, entries) end
  replayed = delivered
  redis.call('HSET', META, 'late:' .. name, fmt_int(delivered))
end
redis.call('HSET', META, 'catcher:' .. name, consumer)
return result('catch up', replayed, entries_after(replayed, limit))
