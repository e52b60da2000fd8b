-- The tokens of one endpoint and account, for all processes: what `SharedBucket` does, in one trip.
--
-- With s(n) = min(written + guard, answered) of the n-th request, the next ones are due at
-- due(n) = max(due(n - 1), s(n - burst)) + interval. To it come a line in which processes wait, and
-- a term for each token in hand. All times are the server's, in microseconds.
--
-- KEYS: the state; what is known of the server; those who are alive.
-- ARGV: who, interval, burst, guard, pulse term, then what happened, in order:
--   "w", ticket, guard, age    the request on a ticket was written so long ago
--   "a", ticket, age           it was answered
--   "b", ticket                it certainly never left
--   "l"                        nobody waits here any more
--   "p", for how long          nothing may leave
--   "t", ticket                a token is wanted, under this number
-- Saying something twice, because the answer was lost, does no harm.
-- With "" for who, of ARGV only the term matters: how many requests there were, tokens in hand, who
-- waits, and how long it is paused; nothing is changed.
-- Returns for a "t": how long to wait before asking again, 0 for a token; where it is paused as well,
-- that and for how long.

local STATE, SERVER, ALIVE = unpack(KEYS)
local who = ARGV[1]
local interval, burst, guard = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local HOLD = 30000000     -- how long a token can be in hand before it counts as used
local LATE = 500000       -- by how much one may be late for its turn
local GLANCE = 20000      -- when to look again for a token in hand to be written
local KEEP = 3600000000   -- how long the state outlives the last that happened

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function whole(number)
  return string.format('%.0f', number)
end

-- A list is kept as "name,time name,time ".
local function read(text)
  local list = {}
  if text == '' then return list end
  for name, at in string.gmatch(text, '([^ ,]+),(%d+) ') do
    list[#list + 1] = {name, tonumber(at)}
  end
  return list
end

local function write(list)
  if #list == 0 then return '' end
  local parts = {}
  for index, pair in ipairs(list) do parts[index] = string.format('%s,%.0f ', pair[1], pair[2]) end
  return table.concat(parts)
end

local function find(list, name)
  for index, pair in ipairs(list) do
    if pair[1] == name then return index end
  end
end

local saved, due, paused, was_burst, requests = 0, 0, 0, burst, 0
local starts, held, line, void = {}, {}, {}, {}
local since = redis.call('HGET', SERVER, 'since')
local kept = redis.call('GET', STATE)
local kept_since
if kept then
  local lists = '([^|]*)|([^|]*)|([^|]*)|([^|]*)'
  kept_since, requests, was_burst, saved, due, paused, starts, held, line, void =
    string.match(kept, '(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|' .. lists)
  requests, was_burst, saved = requests + 0, was_burst + 0, saved + 0
  due, paused = due + 0, paused + 0
  starts, held, line, void = read(starts), read(held), read(line), read(void)
end

-- Whether a token is in the hands of somebody who lives: all do for a term after they took it.
local function lives(token)
  if token[2] - HOLD + ARGV[5] > now then return true end
  local score = redis.call('ZSCORE', ALIVE, string.match(token[1], '[^/]+'))
  return score and tonumber(score) > now
end

if who == '' then  -- somebody only looks
  local in_hand, waiting = 0, 0
  for _, each in ipairs(held) do
    if each[2] > now and lives(each) then in_hand = in_hand + 1 end
  end
  for _, each in ipairs(line) do
    if each[2] > now then waiting = waiting + 1 end
  end
  return {requests, in_hand, waiting, math.max(0, paused - now)}
end
if not since then
  since = whole(now)
  redis.call('HSET', SERVER, 'since', since)
end
if kept_since ~= since then
  -- Nobody knows what went out before: as much as could, just then.
  saved, starts, was_burst = 0, {}, burst
  for index = 1, burst do starts[index] = {'-', since + guard} end
end
local more = burst - was_burst
if more > 0 and #starts > 0 then
  -- Of those before the first that is remembered nothing is known but that they were before it.
  for _ = 1, more do table.insert(starts, 1, {'-', starts[1][2]}) end
  more = 0
end
saved = saved + more
while saved < 0 do
  saved = saved + 1
  due = math.max(due, table.remove(starts, 1)[2]) + interval
end

local function next_due()
  local ahead, at = #held - saved, 0
  if ahead >= 0 then
    if ahead >= #starts then return math.huge end
    at = due
    for index = 1, ahead + 1 do at = math.max(at, starts[index][2]) + interval end
  end
  return math.max(now, at, paused)
end

local function available()
  if now < paused then return 0 end
  local at, count = due, saved
  for _, start in ipairs(starts) do
    at = math.max(at, start[2]) + interval
    if at > now then break end
    count = count + 1
  end
  return count - #held
end

-- Whether no request was due or can have started later than at a time.
local function rested(at)
  for _, start in ipairs(starts) do
    if start[2] > at then return false end
  end
  return due <= at
end

-- Whether an answer can still bring a token forward.
local function awaits_answers()
  for _, start in ipairs(starts) do
    if start[2] > now then return true end
  end
  return false
end

local function spend(ticket, at, margin)
  requests = requests + 1
  local index = find(held, ticket)
  if index then table.remove(held, index) end
  if #starts > 0 and rested(at - interval * burst) then
    saved, due, starts = burst, 0, {}  -- a rest long enough for all to be back
  end
  if saved > 0 then
    saved = saved - 1
  else
    due = math.max(due, table.remove(starts, 1)[2]) + interval
  end
  starts[#starts + 1] = {ticket, at + margin}
end

local function leave(name)
  local index = find(line, name)
  if index then table.remove(line, index) end
end

local function forget_the_dead()
  local index = 1
  while index <= #held do
    local ticket, ends = held[index][1], held[index][2]
    if ends <= now or not lives(held[index]) then
      spend(ticket, math.min(now, ends), guard)  -- it may have been written, at the last moment
    else
      index = index + 1
    end
  end
  for index = #line, 1, -1 do
    if line[index][2] <= now then table.remove(line, index) end
  end
  for index = #void, 1, -1 do
    if void[index][2] <= now then table.remove(void, index) end
  end
end

local function take(ticket)
  forget_the_dead()
  if find(held, ticket) then return 0 end
  if find(void, ticket) then return GLANCE end
  local place = find(line, who) or #line + 1
  local at = next_due()
  if at <= now and place <= math.max(1, available()) then
    leave(who)
    held[#held + 1] = {ticket, now + HOLD}
    return 0
  end
  if at == math.huge then at = now + GLANCE end
  if awaits_answers() then
    -- One that comes right now, to whichever process, makes it no sooner than this.
    at = math.min(at, math.max(paused, now + math.max(interval, GLANCE)))
  end
  -- Those before us each take a token of their own first.
  local wait = math.max(place > 1 and GLANCE or 100, at + (place - 1) * interval - now)
  line[place] = {who, now + wait + LATE}
  return math.ceil(wait)
end

local wait = 0
local index = 6
while index <= #ARGV do
  local what = ARGV[index]
  local ticket = who .. '/' .. (ARGV[index + 1] or '')
  if what == 't' then
    wait = take(ticket)
    index = index + 2
  elseif what == 'w' then
    local at, margin = now - ARGV[index + 3], tonumber(ARGV[index + 2])
    local known = find(starts, ticket)
    if known then
      starts[known][2] = math.max(starts[known][2], at + margin)
    else
      spend(ticket, at, margin)
    end
    index = index + 4
  elseif what == 'a' then
    local known = find(starts, ticket)
    if known then starts[known][2] = math.min(starts[known][2], now - ARGV[index + 2]) end
    index = index + 3
  elseif what == 'b' then
    local known = find(held, ticket)
    if known then
      table.remove(held, known)
    else
      void[#void + 1] = {ticket, now + HOLD}  -- should it be asked for later than it was given up
    end
    index = index + 2
  elseif what == 'l' then
    leave(who)
    index = index + 1
  elseif what == 'p' then
    paused = math.max(paused, now + ARGV[index + 1])
    index = index + 2
  end
end

local last = starts[#starts] and starts[#starts][2] or now
local keep = math.max(paused, due, last, now) - now + interval * (burst + 1) + KEEP
local state = string.format('%s|%d|%d|%d|%.0f|%.0f|%s|%s|%s|%s', since, requests, burst, saved, due,
  paused, write(starts), write(held), write(line), write(void))
redis.call('SET', STATE, state, 'PX', math.ceil(keep / 1000))
if paused > now then return {wait, math.ceil(paused - now)} end
return wait
