-- The content of a log. Changes nothing.
--
-- ARGV: how many of the last entries to return.
-- Returns the head, the number of entries, whether there is a leader, the number of fetch intents;
-- for each name: it, its position, and the number of entries after that; the last entries of the
-- stream, and the last of those that arrived out of order; the time since the last lease has expired,
-- in microseconds, -1 without one.

local latest = tonumber(ARGV[1])
read_only = true

local function has_leader()
  local lease = redis.call('HMGET', META, 'leader', 'leads until')
  return lease[1] and tonumber(lease[2]) > now() and alive(lease[1]) and 1 or 0
end

local function idle_for()
  local ends = redis.call('HGET', META, 'leads until')
  return ends and math.max(0, now() - tonumber(ends)) or -1
end

local function lag(position)
  return #out_of_order_after(position) + count_stream_after(position)
end

local function readers()
  local readers, groups = {}, redis.pcall('XINFO', 'GROUPS', STREAM)
  if groups.err then return readers end
  for index, info in ipairs(groups) do
    local name = field(info, 'name')
    local position = position_in_chain(name)
    readers[index] = {name, position, lag(position)}
  end
  return readers
end

local stream, out_of_order = {}, {}
if latest > 0 then
  stream = redis.call('XREVRANGE', STREAM, '+', '-', 'COUNT', latest)
  for index, id in ipairs(redis.call('ZREVRANGE', OUT_OF_ORDER_IDS, 0, latest - 1)) do
    out_of_order[index] = out_of_order_entry(id)
  end
end
local length = redis.call('XLEN', STREAM) + redis.call('LLEN', ARRIVAL_ORDER)
return {
  head(), length, has_leader(), redis.call('HLEN', FETCHES), readers(), stream, out_of_order,
  idle_for(),
}
