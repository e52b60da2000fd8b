-- The tokens of one endpoint and account, for all processes: `SharedBucket` in one round trip.
--
-- With s(n) = min(written + guard, answered) of the n-th request, the next ones are due at
-- due(n) = max(due(n - 1), s(n - burst)) + interval. In addition there is a wait queue of
-- processes, and an expiry of each outstanding token. All times are the server's, in microseconds.
--
-- KEYS: the state; the server's run; the owners that are alive; a name that ends with the salt with
--       which the name of the state is made.
-- ARGV: owner, interval, burst, guard, session timeout, the latest possible time of the store and the
--       number of steps that it belongs to (0 if unknown), then the events, in their order:
--   "w", ticket, guard, age    the request of a ticket was written, `age` ago
--   "a", ticket, age           it was answered
--   "b", ticket                it was certainly not sent: the token is released
--   "l"                        the owner leaves the queue
--   "p", duration              no token is granted for this time
--   "t", ticket                a token is requested, with this ticket
-- An event that is sent twice, because the response was lost, does no harm.
-- If the owner is "" nothing is changed, and of ARGV only the session timeout is used. Returns then
-- the number of requests, of outstanding tokens and of waiters, and how long the bucket is paused.
-- Returns else how long to wait before the next request for a token, or 0 if it is granted; for how
-- long the bucket is paused; the time of the store, its offset and its steps.
--
-- The state is "since|requests|burst|saved|due|paused|starts|outstanding|queue|cancelled":
--   since        the start of the server's run that the state belongs to
--   requests     how many requests were written since the endpoint is known
--   burst        the burst of the process that wrote the state last
--   saved, due, starts   as in `Bucket`: unused tokens; when the last token was due; the starts
--                s(n) of the last requests, by ticket
--   paused       until when no token is granted
--   outstanding  tickets whose requests were not written yet, by expiry
--   queue        the owners that wait, by the time until which they must ask again
--   cancelled    tickets that were released before the request for them arrived, by expiry
-- In Python an owner's ticket is a number; here it is "<owner>/<number>".

local STATE, SERVER, ALIVE, SALT = unpack(KEYS)
local owner = ARGV[1]
if owner ~= '' and not knows_salt(SERVER, SALT) then
  return redis.error_reply('SALT the store has another one')
end
local interval, burst, guard = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local TOKEN_TTL = 30000000      -- after this time an outstanding token counts as used
local TURN_GRACE = 500000       -- how late a waiter may ask again and keep its rank in the queue
local RECHECK_INTERVAL = 20000  -- when to ask again while an outstanding token is not written
local STATE_TTL = 3600000000    -- how long the state is kept after its last effect
local MAX_TTL = 1e15            -- the longest time for which Redis can keep a key

local now, offset = store_time(SERVER, owner ~= '' and ALIVE)

local function fmt_int(number)
  return string.format('%.0f', number)
end

-- Returns a stored time. One that no program of ours can have stored is limited: further in the
-- future, a bucket would never grant a token, and a number that is too large has no integer.
local function read_time(text)
  return math.min(tonumber(text), now + MAX_TTL)
end

-- A list is stored as "name,time name,time ".
local function read(text)
  local list = {}
  if text == '' then return list end
  for name, at in string.gmatch(text, '([^ ,]+),(%d+) ') do
    list[#list + 1] = {name, read_time(at)}
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

local saved, due, paused, stored_burst, requests = 0, 0, 0, burst, 0
local starts, outstanding, queue, cancelled = {}, {}, {}, {}
local stored = redis.call('GET', STATE)
local stored_since
if stored then
  local lists = '([^|]*)|([^|]*)|([^|]*)|([^|]*)'
  stored_since, requests, stored_burst, saved, due, paused, starts, outstanding, queue, cancelled =
    string.match(stored, '(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|' .. lists)
  requests, stored_burst, saved = requests + 0, stored_burst + 0, saved + 0
  due, paused = read_time(due), read_time(paused)
  starts, outstanding, queue, cancelled =
    read(starts), read(outstanding), read(queue), read(cancelled)
end

-- Whether the owner of a token is alive. All count as alive for a session timeout after the grant.
local function is_owner_alive(token)
  if token[2] - TOKEN_TTL + ARGV[5] > now then return true end
  local expires = redis.call('ZSCORE', ALIVE, string.match(token[1], '[^/]+'))
  return expires and tonumber(expires) > now
end

if owner == '' then
  local outstanding_count, waiting = 0, 0
  for _, token in ipairs(outstanding) do
    if token[2] > now and is_owner_alive(token) then outstanding_count = outstanding_count + 1 end
  end
  for _, waiter in ipairs(queue) do
    if waiter[2] > now then waiting = waiting + 1 end
  end
  return {requests, outstanding_count, waiting, math.max(0, paused - now)}
end
local since, steps, latest = known_start(SERVER, now), known_steps(SERVER), tonumber(ARGV[6])
if latest > 0 and now > latest and tonumber(ARGV[7]) == steps then
  -- The clock was set forward: less time has passed since the last requests than it seems.
  steps = redis.call('HINCRBY', SERVER, 'steps', 1)
  since = fmt_int(now)
  redis.call('HSET', SERVER, 'since', since)
end
if stored_since ~= since then
  -- The requests before the start of the server are unknown: assume as many as possible, just then.
  saved, starts, stored_burst = 0, {}, burst
  local start = math.min(tonumber(since), now)
  for index = 1, burst do starts[index] = {'-', start + guard} end
end
local added_tokens = burst - stored_burst
if added_tokens > 0 and #starts > 0 then
  -- The requests before the first stored start are unknown, but were not later than that.
  for _ = 1, added_tokens do table.insert(starts, 1, {'-', starts[1][2]}) end
  added_tokens = 0
end
saved = saved + added_tokens
while saved < 0 do
  saved = saved + 1
  due = math.max(due, table.remove(starts, 1)[2]) + interval
end

local function next_due()
  local ahead, at = #outstanding - saved, 0
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
  return count - #outstanding
end

-- Whether no request was due or can have started later than at a time.
local function idle_since(at)
  for _, start in ipairs(starts) do
    if start[2] > at then return false end
  end
  return due <= at
end

-- Whether a response can still make a token available earlier.
local function awaits_responses()
  for _, start in ipairs(starts) do
    if start[2] > now then return true end
  end
  return false
end

local function spend(ticket, at, margin)
  requests = requests + 1
  local index = find(outstanding, ticket)
  if index then table.remove(outstanding, index) end
  if #starts > 0 and idle_since(at - interval * burst) then
    saved, due, starts = burst, 0, {}  -- idle for so long that all tokens are available
  end
  if saved > 0 then
    saved = saved - 1
  else
    due = math.max(due, table.remove(starts, 1)[2]) + interval
  end
  starts[#starts + 1] = {ticket, at + margin}
end

local function leave_queue(name)
  local index = find(queue, name)
  if index then table.remove(queue, index) end
end

local function expire_dead_owners()
  local index = 1
  while index <= #outstanding do
    local ticket, ends = outstanding[index][1], outstanding[index][2]
    if ends <= now or not is_owner_alive(outstanding[index]) then
      spend(ticket, math.min(now, ends), guard)  -- its request may have been written until then
    else
      index = index + 1
    end
  end
  for index = #queue, 1, -1 do
    if queue[index][2] <= now then table.remove(queue, index) end
  end
  for index = #cancelled, 1, -1 do
    if cancelled[index][2] <= now then table.remove(cancelled, index) end
  end
end

local function acquire(ticket)
  expire_dead_owners()
  if find(outstanding, ticket) then return 0 end
  if find(cancelled, ticket) then return RECHECK_INTERVAL end
  local rank = find(queue, owner) or #queue + 1
  local at = next_due()
  if at <= now and rank <= math.max(1, available()) then
    leave_queue(owner)
    outstanding[#outstanding + 1] = {ticket, now + TOKEN_TTL}
    return 0
  end
  if at == math.huge then at = now + RECHECK_INTERVAL end
  if awaits_responses() then
    -- A response that arrives now, in any process, makes a token available no earlier than this.
    at = math.min(at, math.max(paused, now + math.max(interval, RECHECK_INTERVAL)))
  end
  -- Each process ahead in the queue takes a token first.
  local wait = math.max(rank > 1 and RECHECK_INTERVAL or 100, at + (rank - 1) * interval - now)
  queue[rank] = {owner, now + wait + TURN_GRACE}
  return math.ceil(wait)
end

local wait = 0
local index = 8
while index <= #ARGV do
  local op = ARGV[index]
  local ticket = owner .. '/' .. (ARGV[index + 1] or '')
  if op == 't' then
    wait = acquire(ticket)
    index = index + 2
  elseif op == 'w' then
    local at, margin = now - ARGV[index + 3], tonumber(ARGV[index + 2])
    local start = find(starts, ticket)
    if start then
      starts[start][2] = math.max(starts[start][2], at + margin)
    else
      spend(ticket, at, margin)
    end
    index = index + 4
  elseif op == 'a' then
    local start = find(starts, ticket)
    if start then starts[start][2] = math.min(starts[start][2], now - ARGV[index + 2]) end
    index = index + 3
  elseif op == 'b' then
    local token = find(outstanding, ticket)
    if token then
      table.remove(outstanding, token)
    else
      cancelled[#cancelled + 1] = {ticket, now + TOKEN_TTL}  -- the request for it may arrive later
    end
    index = index + 2
  elseif op == 'l' then
    leave_queue(owner)
    index = index + 1
  elseif op == 'p' then
    paused = math.max(paused, now + ARGV[index + 1])
    index = index + 2
  end
end

local last = starts[#starts] and starts[#starts][2] or now
local ttl = math.max(paused, due, last, now) - now + interval * (burst + 1) + STATE_TTL
local state = string.format('%s|%d|%d|%d|%.0f|%.0f|%s|%s|%s|%s', since, requests, burst, saved, due,
  paused, write(starts), write(outstanding), write(queue), write(cancelled))
redis.call('SET', STATE, state, 'PX', math.ceil(math.min(ttl, MAX_TTL) / 1000))
return {wait, math.ceil(math.max(0, paused - now)), now, offset, steps}
