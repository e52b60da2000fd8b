-- Returns entries after a position, for a reader that shares no name with others.
--
-- ARGV: known head, whether reads are destructive ("1"), position, limit or "" for none, the field
--       for the acknowledged position, and that position or "".
-- Returns the head and the entries.

local last = head_since(tonumber(ARGV[1]), ARGV[2] == '1')
local acknowledged = optional(ARGV[6])
if acknowledged then raise_to(ARGV[5], acknowledged) end
if ARGV[4] == '0' then return {last, {}} end
return {last, entries_after(tonumber(ARGV[3]), optional(ARGV[4]))}
