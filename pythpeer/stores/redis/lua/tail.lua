-- Returns the head of a log and its last entries, ascending, wherever they are stored.
--
-- ARGV: how many entries to return, 0 for the head alone.

local limit = tonumber(ARGV[1])

if limit == 0 then
  return {head(), {}}  -- XREVRANGE with a COUNT of 0 returns no list
end

local entries = relinked(redis.call('XREVRANGE', STREAM, '+', '-', 'COUNT', limit))
for _, id in ipairs(redis.call('ZREVRANGE', OUT_OF_ORDER_IDS, 0, limit - 1)) do
  entries[#entries + 1] = out_of_order_entry(id)
end
table.sort(entries, function(a, b) return number_of(a[1]) < number_of(b[1]) end)
return {head(), {unpack(entries, math.max(1, #entries - limit + 1))}}
