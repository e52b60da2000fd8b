-- The beginning of each script about a log.
--
-- All times are the server's, in microseconds. Ids are numbers here, and "<id>-0" in the stream. An
-- entry is {"<id>-0", {"after", n, ["gap", "1",] ["item", json]}}, wherever it is stored.
--
-- The keys of a log, whose names are kept as they are stored:
--   STREAM            log:         the stream, with the entries that arrived in order
--   META              meta:        the lease, the acknowledged and the direct position, counters;
--                                  for each name its epoch, and while it is replaying "late:" (its
--                                  position) and "catcher:" (the consumer that replays); where reads
--                                  are destructive also "runs", "jump" and "suspect", see `head_since`
--   LINKS             links:       better links of entries in the stream: id -> "after gap"
--   OUT_OF_ORDER      late:        the entries that arrived out of order, by id
--   OUT_OF_ORDER_IDS  late-ids:    their ids, sorted
--   ARRIVAL_ORDER     late-order:  their ids, in the order of arrival
--   SEEN              seen:        for items without an id: identity -> "copies duplicates"
--   FETCHES           announced:   the fetch intents, see lease_and_fetches.lua
--   ALIVE             alive        the owners that are alive, by the time at which they expire
--   DEATHS            deaths       the number of deaths, and of releases of a lease
--   SERVER            server       the run of the server, and the time of the store
--   SALT              salt:        no key: its name ends with the salt with which the names are made
--
-- What a client knows of a log is one argument, "<head> <since> <suspect>", which it has from the
-- response to an earlier script: the head, the start of the server's run at that time, and the id up
-- to which entries may have been acknowledged although the server does not know it.
--
-- The argument "fetch time" is 0 if reads are not destructive, or else the time in which such a read
-- is over.

local STREAM, META, LINKS, OUT_OF_ORDER, OUT_OF_ORDER_IDS, ARRIVAL_ORDER = unpack(KEYS, 1, 6)
local SEEN, FETCHES, ALIVE, DEATHS, SERVER, SALT = unpack(KEYS, 7, 12)

if not knows_salt(SERVER, SALT) then return redis.error_reply('SALT the store has another one') end

-- By how much the ids jump in a log that lost its end: beyond all ids that any reader has seen.
local JUMP = 1000000

-- The number of runs of the server whose start is remembered.
local MAX_RUNS = 16

-- What the names of owners begin with, see Heartbeat.new_owner.
local OWNER_PREFIX = 'pythpeer-'

-- The time for which what is new on a server that was emptied may have existed before.
local EMPTIED_TIME = 3600000000

-- Whether the script stores nothing.
local read_only = false

-- The time of the store, the same during the whole script.
local script_time

local function now()
  if not script_time then script_time = store_time(SERVER, not read_only and ALIVE) end
  return script_time
end

local function fmt_int(number)
  return string.format('%.0f', number)
end

local function number_of(id)
  return tonumber(string.match(id, '^%d+'))
end

-- Returns whether the server was emptied a short time ago.
local function was_emptied()
  local since = tonumber(redis.call('HGET', SERVER, 'emptied') or '')
  return since and now() < since + EMPTIED_TIME
end

-- Returns the value of a name in a flat list of names and values.
local function field(list, name)
  for index = 1, #list, 2 do
    if list[index] == name then return list[index + 1] end
  end
end

local function is_owner(name)
  return string.sub(name, 1, #OWNER_PREFIX) == OWNER_PREFIX
end

local function alive(owner)
  local expires = redis.call('ZSCORE', ALIVE, owner)
  return expires and tonumber(expires) > now()
end

local function keep_alive(owner, timeout)
  redis.call('ZADD', ALIVE, fmt_int(now() + timeout), owner)
end

-- Returns the highest id that the log ever had.
local function head()
  local info = redis.pcall('XINFO', 'STREAM', STREAM)
  return info.err and 0 or number_of(field(info, 'last-generated-id'))
end

-- Returns since when the server runs, which identifies its present run.
local function present_run()
  return known_start(SERVER, now())
end

-- Returns up to which id the log is unchanged for a client that knows a run of the server:
-- the lowest head with which any later run began. It has lost what was after that, and may have
-- given the ids to others.
local function shared_up_to(run)
  local lowest = math.huge
  if not run then return lowest end
  for since, first_head in string.gmatch(redis.call('HGET', META, 'runs') or '', '(%d+):(%d+)') do
    if tonumber(since) > run then lowest = math.min(lowest, tonumber(first_head)) end
  end
  return lowest
end

local function remember_run(since, first_head)
  local runs, count = {}, 0
  for run in string.gmatch(redis.call('HGET', META, 'runs') or '', '%d+:%d+') do
    runs[#runs + 1] = run
  end
  if #runs > 0 and string.match(runs[#runs], '%d+') == since then return end
  -- The server may have lost its last writes: what was acknowledged then is redelivered.
  if #runs > 0 then redis.call('HSET', META, 'suspect', fmt_int(first_head)) end
  runs[#runs + 1] = since .. ':' .. fmt_int(first_head)
  while #runs > MAX_RUNS do table.remove(runs, 1) end
  redis.call('HSET', META, 'runs', table.concat(runs, ' '))
end

local function known_run(known)
  return tonumber(string.match(known, '^%d+ (%d+)') or '')
end

-- Returns the id up to which what is redelivered may have been acknowledged. What no program of ours
-- has written counts as 0.
local function suspect_up_to(last)
  local stored = string.match(redis.call('HGET', META, 'suspect') or '', '^%d+$')
  return math.min(tonumber(stored or '0'), last)
end

-- Returns what a client knows of the log from now on.
local function known_from(last)
  return fmt_int(last) .. ' ' .. present_run() .. ' ' .. fmt_int(suspect_up_to(last))
end

-- Stores a fetch intent that counts as lost now, and once more after the fetch time: the server has
-- lost those of requests that may still be under way, perhaps of programs that have ended.
local function lose_unknown_fetches(fetch_time)
  local fetch = redis.call('HINCRBY', META, 'announcements', 1)
  redis.call('HSET', FETCHES, fetch, fmt_int(now() + fetch_time) .. ' - 0')
end

-- Returns the highest id, for a client with this knowledge of the log. If the server has lost the end
-- of a log that is not read destructively, it is simply fetched again. Else it has to be recovered
-- from the history, with ids beyond all that any reader has seen: a lost fetch intent starts that.
-- A log that is new on a server that was emptied may have had fetch intents as well.
local function head_since(known, fetch_time)
  local last = head()
  if fetch_time == 0 then return last end
  local is_new = redis.call('HEXISTS', META, 'runs') == 0
  remember_run(present_run(), last)
  local known_head = tonumber(string.match(known, '^%d+'))
  local jump = tonumber(redis.call('HGET', META, 'jump') or '0')
  local lost = known_head > shared_up_to(known_run(known)) and known_head > jump
  if last >= known_head and not lost then
    if is_new and was_emptied() then
      lose_unknown_fetches(fetch_time)
    end
    return last
  end
  last = math.max(last, known_head) + JUMP
  redis.call('XADD', STREAM, fmt_int(last) .. '-0', 'after', '0')
  redis.call('XDEL', STREAM, fmt_int(last) .. '-0')
  lose_unknown_fetches(fetch_time)
  redis.call('HSET', META, 'jump', fmt_int(last))
  return last
end

local function make_entry(id, after, gap, item)
  local fields = {'after', fmt_int(after)}
  if gap then
    fields[3], fields[4] = 'gap', '1'
  end
  if item then
    fields[#fields + 1] = 'item'
    fields[#fields + 1] = item
  end
  return {fmt_int(id) .. '-0', fields}
end

-- Returns the link of an entry. One that another program has written has none: it follows directly.
local function link_of(entry)
  local after = entry[2][1] == 'after' and tonumber(entry[2][2])
  return after or number_of(entry[1]) - 1, entry[2][3] == 'gap'
end

-- Replaces links of entries by the better ones that are stored apart from the stream.
local function relinked(entries)
  if redis.call('EXISTS', LINKS) == 0 then return entries end
  for index, entry in ipairs(entries) do
    local id = number_of(entry[1])
    local link = redis.call('HGET', LINKS, fmt_int(id))
    if link then
      local after, gap = string.match(link, '(%d+) (%d)')
      entries[index] = make_entry(id, tonumber(after), gap == '1', field(entry[2], 'item'))
    end
  end
  return entries
end

-- Returns an entry that arrived out of order, and the head at its arrival. It is stored as
-- "after gap head [item]".
local function out_of_order_entry(id)
  local stored = redis.call('HGET', OUT_OF_ORDER, id)
  if not stored then return nil end
  local after, gap, arrived, item = string.match(stored, '^(%d+) (%d) (%d+) ?(.*)$')
  if item == '' then item = nil end
  return make_entry(tonumber(id), tonumber(after), gap == '1', item), tonumber(arrived)
end

local function keep_out_of_order(id, after, gap, arrived, item)
  local stored = fmt_int(after) .. (gap and ' 1 ' or ' 0 ') .. fmt_int(arrived)
  redis.call('HSET', OUT_OF_ORDER, fmt_int(id), item and stored .. ' ' .. item or stored)
end

local function out_of_order_after(position, limit)
  if redis.call('EXISTS', OUT_OF_ORDER_IDS) == 0 then return {} end
  local command = {'ZRANGEBYSCORE', OUT_OF_ORDER_IDS, '(' .. fmt_int(position), '+inf'}
  if limit then
    command[5], command[6], command[7] = 'LIMIT', 0, limit
  end
  return redis.call(unpack(command))
end

local function stream_after(position, limit)
  local command = {'XRANGE', STREAM, '(' .. fmt_int(position) .. '-0', '+'}
  if limit then
    command[5], command[6] = 'COUNT', limit
  end
  return relinked(redis.call(unpack(command)))
end

-- Returns the number of entries of the stream after a position.
local function count_stream_after(position)
  local count = 0
  while true do
    local chunk = stream_after(position, 1000)
    count = count + #chunk
    if #chunk < 1000 then return count end
    position = number_of(chunk[#chunk][1])
  end
end

-- Returns the entries after a position, wherever they are stored, in the order of their ids.
local function entries_after(position, limit)
  local stream, others = stream_after(position, limit), out_of_order_after(position, limit)
  if #others == 0 then return stream end
  local merged, s, o = {}, 1, 1
  while (stream[s] or others[o]) and not (limit and #merged >= limit) do
    if stream[s] and not (others[o] and tonumber(others[o]) < number_of(stream[s][1])) then
      merged[#merged + 1] = stream[s]
      s = s + 1
    else
      merged[#merged + 1] = out_of_order_entry(others[o])
      o = o + 1
    end
  end
  return merged
end

-- Returns the last delivered id of a reader group, and the number of its pending items; nothing if
-- the log does not have the name.
local function group(name)
  local groups = redis.pcall('XINFO', 'GROUPS', STREAM)
  if groups.err then return nil end
  for _, info in ipairs(groups) do
    if field(info, 'name') == name then
      return number_of(field(info, 'last-delivered-id')), field(info, 'pending')
    end
  end
end

local function make_group(name, position)
  redis.call('XGROUP', 'CREATE', STREAM, name, fmt_int(position) .. '-0', 'MKSTREAM')
end

local function move_group(name, position)
  redis.call('XGROUP', 'SETID', STREAM, name, fmt_int(position) .. '-0')
end

-- Returns the position of a name that replays what the stream lacks; nothing if it does not.
local function replay_position(name)
  local position = redis.call('HGET', META, 'late:' .. name)
  return position and tonumber(position)
end

-- Returns "<epoch> <since>": how often the name was moved by seek, and the run of the server. A reader
-- passes it with what it acknowledges.
local function epoch(name)
  return (redis.call('HGET', META, 'epoch:' .. name) or '0') .. ' ' .. present_run()
end

-- Returns the id up to which all items were acknowledged.
local function position_of(name)
  local delivered, pending = group(name)
  if not delivered then return nil end
  local position = replay_position(name) or delivered
  if pending > 0 then
    position = math.min(position, number_of(redis.call('XPENDING', STREAM, name)[2]) - 1)
  end
  return position
end

-- Returns the same position as a link of the chain: immediately before the first pending item.
local function position_in_chain(name)
  local position, first = position_of(name), redis.pcall('XPENDING', STREAM, name)[2]
  if not first then return position end
  local entry = relinked(redis.call('XRANGE', STREAM, first, first))[1]
  return entry and math.min(position, (link_of(entry))) or position
end

-- Stores a position in a field of META, unless it has a greater one.
local function raise_to(meta_field, position)
  if position > tonumber(redis.call('HGET', META, meta_field) or '0') then
    redis.call('HSET', META, meta_field, fmt_int(position))
  end
end

-- Acknowledges pending `ids`, and all up to `position`, for a reader of a name: nothing if the name was
-- moved by seek after the epoch that the reader knows, and nothing that the server has lost since.
local function acknowledge(name, known_epoch, position, ids)
  if known_epoch ~= '' then
    local number = string.match(known_epoch, '^%d+')
    if number ~= string.match(epoch(name), '^%d+') then return end
    local shared = shared_up_to(known_run(known_epoch))
    if position then position = math.min(position, shared) end
    local kept = {}
    for _, id in ipairs(ids) do
      if tonumber(id) <= shared then kept[#kept + 1] = id end
    end
    ids = kept
  end
  if not position and #ids == 0 then return end
  local delivered = group(name)
  if not delivered then
    if not position then return end
    make_group(name, position)
    delivered = position
  end
  if #ids > 0 then redis.call('XACK', STREAM, name, unpack(ids)) end
  if position then
    local replayed = replay_position(name)
    if replayed then
      redis.call('HSET', META, 'late:' .. name, fmt_int(math.max(replayed, position)))
    elseif position > delivered then
      move_group(name, position)
    end
  end
  raise_to('acknowledged', position_of(name))
end

local function optional(text)
  if text ~= '' then return tonumber(text) end
end

local function rest(first)
  local values = {}
  for index = first, #ARGV do values[#values + 1] = ARGV[index] end
  return values
end
