-- Returns the number of entries that neither a stream has acknowledged nor a direct call returned.
-- Changes nothing.

read_only = true

local position = 0
for _, read in ipairs(redis.call('HMGET', META, 'acknowledged', 'direct')) do
  position = math.max(position, tonumber(read or '0'))
end
local count = 0
while true do
  local chunk = redis.call('XRANGE', STREAM, '(' .. fmt_int(position) .. '-0', '+', 'COUNT', 1000)
  count = count + #chunk
  if #chunk < 1000 then return count end
  position = number_of(chunk[#chunk][1])
end
