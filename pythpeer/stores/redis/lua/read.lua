-- Returns entries after a position, for a reader that shares no name with others.
--
-- ARGV: what the client knows, the fetch time, position, limit or "" for none,
--       the field for the acknowledged position, that position or "", and what the client knew at
--       the last read of this reader.
-- Returns what the client knows from now on, and the entries. If the server has lost entries before
-- the position, their ids may belong to others now: it returns those.

local last = head_since(ARGV[1], tonumber(ARGV[2]))
local shared = shared_up_to(known_run(ARGV[7]))
local acknowledged = optional(ARGV[6])
if acknowledged then raise_to(ARGV[5], math.min(acknowledged, shared)) end
if ARGV[4] == '0' then return {known_from(last), {}} end
return {known_from(last), entries_after(math.min(tonumber(ARGV[3]), shared), optional(ARGV[4]))}
