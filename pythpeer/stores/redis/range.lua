-- Entries after a place, for a reader that shares with nobody.
--
-- ARGV: known head, whether the service forgets, after, limit or "", where to note what was
--       acknowledged, and up to where, or "".
-- Returns the head and the entries.

local last = head_since(tonumber(ARGV[1]), ARGV[2] == '1')
local acknowledged = optional(ARGV[6])
if acknowledged then note(ARGV[5], acknowledged) end
if ARGV[4] == '0' then return {last, {}} end
return {last, entries_after(tonumber(ARGV[3]), optional(ARGV[4]))}
