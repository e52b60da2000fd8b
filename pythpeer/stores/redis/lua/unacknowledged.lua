-- Returns the number of entries that neither a stream has acknowledged nor a direct call returned.
-- Changes nothing.

read_only = true

local position = 0
for _, read in ipairs(redis.call('HMGET', META, 'acknowledged', 'direct')) do
  position = math.max(position, tonumber(read or '0'))
end
return count_stream_after(position)
