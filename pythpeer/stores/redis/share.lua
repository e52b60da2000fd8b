-- The next items for one of the workers that share a name, which is a consumer group.
--
-- ARGV: known head, whether the service forgets, name, worker, its term in microseconds, limit,
--       where the worker stands, the name's epoch as it knows it or "", whether to repeat what it
--       has in hand, then what it acknowledges: a place or "", and ids.
-- Returns a mode, the epoch, the head, where the name stands, and entries. The modes:
--   "next"     the group's next items, in the order of the log
--   "again"    items that were handed out before, to this worker or to one that is dead
--   "catch up" the stream lacks what comes next: entries as they are, for this worker alone
--   "wait"     the same, and another worker is at it

local consumed, name, worker = ARGV[2] == '1', ARGV[3], ARGV[4]
local limit, position = tonumber(ARGV[6]), tonumber(ARGV[7])

local last = head_since(tonumber(ARGV[1]), consumed)
if not group(name) then make_group(name, position) end  -- the server lost it
acknowledge(name, optional(ARGV[8]), optional(ARGV[10]), rest(11))
live(worker, tonumber(ARGV[5]))
local at, pending = group(name)

local function answer(mode, place, entries)
  return {mode, epoch(name), last, place, entries}
end

local function in_hand(id)
  local reply = redis.call(
    'XREADGROUP', 'GROUP', name, worker, 'COUNT', limit, 'STREAMS', STREAM, id)
  if not reply then return {} end
  return reply[1][2]
end

-- What was trimmed while somebody had it in hand comes as an entry without fields.
local function gone(id)
  redis.call('XACK', STREAM, name, id)
  return {id, {}}
end

local function take_over(dead)
  local ids, found = {}, {}
  local pending = redis.call('XPENDING', STREAM, name, '-', '+', limit, dead)
  for index, each in ipairs(pending) do ids[index] = each[1] end
  for _, each in ipairs(redis.call('XCLAIM', STREAM, name, worker, 0, unpack(ids))) do
    if each then found[each[1]] = each end
  end
  for index, id in ipairs(ids) do ids[index] = found[id] or gone(id) end
  if #ids < limit then redis.call('XGROUP', 'DELCONSUMER', STREAM, name, dead) end
  return ids
end

local function left_by_the_dead()
  for _, consumer in ipairs(redis.call('XPENDING', STREAM, name)[4] or {}) do
    local who = consumer[1]
    if who ~= worker and string.sub(who, 1, 9) == 'pythpeer-' and not alive(who) then
      return take_over(who)
    end
  end
  return {}
end

if pending > 0 then
  local again = {}
  if ARGV[9] == '1' then
    again = in_hand('0')
    for index, each in ipairs(again) do
      if not each[2] then again[index] = gone(each[1]) end
    end
  end
  if #again == 0 then again = left_by_the_dead() end
  if #again > 0 then return answer('again', at, relinked(again)) end
end

-- Hand out as much as hangs together: between two links there is nothing else.
local function share(place)
  local entries = relinked(in_hand('>'))
  local late = tonumber(late_after(place, 1)[1] or math.huge)
  local good, reached = 0, place
  for index, each in ipairs(entries) do
    local id = number_of(each[1])
    if link_of(each) > reached or id > late then break end
    good, reached = index, id
  end
  if good == #entries then
    if good == 0 and late < math.huge then return nil end
    return entries
  end
  for index = good + 1, #entries do
    redis.call('XACK', STREAM, name, entries[index][1])
    entries[index] = nil
  end
  move_group(name, reached)
  if good > 0 then return entries end
end

local function settle(place)
  redis.call('HDEL', META, 'late:' .. name, 'catcher:' .. name)
  move_group(name, place)
end

local late = late_place(name)
if late then
  local catcher = redis.call('HGET', META, 'catcher:' .. name)
  if catcher and catcher ~= worker and alive(catcher) then return answer('wait', last, {}) end
  local following = entries_after(late, 1)[1]
  local joins = not following or (link_of(following) <= late
    and redis.call('HEXISTS', LATE, whole(number_of(following[1]))) == 0)
  if joins then
    settle(late)
    at = late
  end
end
if not late_place(name) then
  local entries = share(at)
  if entries then return answer('next', at, entries) end
  late = at
  redis.call('HSET', META, 'late:' .. name, whole(at))
end
redis.call('HSET', META, 'catcher:' .. name, worker)
return answer('catch up', late, entries_after(late, limit))
