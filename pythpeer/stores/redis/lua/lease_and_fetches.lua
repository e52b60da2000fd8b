-- The lease of a log, its fetch intents, and the positions that belong to no group.
--
-- ARGV: command, owner, and more as read below. All times are in microseconds.
-- A fetch intent is stored as "<time at which it is over> <owner> <1 if another has completed it>".

local command, owner = ARGV[1], ARGV[2]

local function store_fetch(number, ends)
  redis.call('HSET', FETCHES, number, fmt_int(ends) .. ' ' .. owner .. ' 0')
  return number
end

local function owner_of(number)
  local fetch = redis.call('HGET', FETCHES, number)
  return fetch and string.match(fetch, '%d+ (%S+)')
end

if command == 'acquire lease' then
  local lease = redis.call('HMGET', META, 'leader', 'leads until')
  local leader, ends = lease[1], lease[2]
  local free = not leader or leader == owner or tonumber(ends) <= now() or not alive(leader)
  if not free then return 0 end
  redis.call('HSET', META, 'leader', owner, 'leads until', fmt_int(now() + ARGV[4]))
  keep_alive(owner, ARGV[3])
  return 1
elseif command == 'release lease' then
  if redis.call('HGET', META, 'leader') == owner then
    redis.call('HDEL', META, 'leader')
    count_deaths(DEATHS, 1)  -- wakes those that wait for the lease, as a death does
  end
elseif command == 'begin fetch' then
  keep_alive(owner, ARGV[3])
  return store_fetch(redis.call('HINCRBY', META, 'announcements', 1), now() + ARGV[4])
elseif command == 'cancel fetch' then
  if owner_of(ARGV[3]) == owner then redis.call('HDEL', FETCHES, ARGV[3]) end
elseif command == 'lose fetch' then
  -- The server may have lost it, and may have given its number to another owner.
  local number = ARGV[3]
  local present = owner_of(number)
  if present and present ~= owner then
    number = redis.call('HINCRBY', META, 'announcements', 1)
  end
  store_fetch(number, 0)
elseif command == 'lost fetches' then
  -- The fetch intent of a dead owner counts immediately, although its request may still be under
  -- way: it is completed now, and once more after its time.
  local numbers, fetches = {}, redis.call('HGETALL', FETCHES)
  for index = 1, #fetches, 2 do
    local ends, by, completed = string.match(fetches[index + 1], '(%d+) (%S+) (%d)')
    if tonumber(ends) <= now() or (completed == '0' and not alive(by)) then
      numbers[#numbers + 1] = tonumber(fetches[index])
    end
  end
  return numbers
elseif command == 'copies' then
  return redis.call('HGETALL', SEEN)
elseif command == 'max acknowledged' then
  return tonumber(redis.call('HGET', META, 'acknowledged') or '0')
elseif command == 'direct position' then
  local position = redis.call('HGET', META, 'direct')
  return position and tonumber(position)
end
