-- What is noted about a log besides its entries: announcements, and whose turn to poll it is.
--
-- ARGV: what, who, and more as it comes below. Terms and times are in microseconds.

local what, who = ARGV[1], ARGV[2]

local function tell(number, ends)
  redis.call('HSET', ANNOUNCED, number, whole(ends) .. ' ' .. who .. ' 0')
  return number
end

local function whose(number)
  local told = redis.call('HGET', ANNOUNCED, number)
  return told and string.match(told, '%d+ (%S+)')
end

if what == 'lead' then
  local leads = redis.call('HMGET', META, 'leader', 'leads until')
  local free = not leads[1] or leads[1] == who or tonumber(leads[2]) <= now() or not alive(leads[1])
  if not free then return 0 end
  redis.call('HSET', META, 'leader', who, 'leads until', whole(now() + ARGV[4]))
  live(who, ARGV[3])
  return 1
elseif what == 'retire' then
  if redis.call('HGET', META, 'leader') == who then
    redis.call('HDEL', META, 'leader')
    redis.call('INCR', DEATHS)  -- as good as dead, for those who wait to take over
  end
elseif what == 'announce' then
  live(who, ARGV[3])
  return tell(redis.call('HINCRBY', META, 'announcements', 1), now() + ARGV[4])
elseif what == 'withdraw' then
  if whose(ARGV[3]) == who then redis.call('HDEL', ANNOUNCED, ARGV[3]) end
elseif what == 'give up' then
  -- Also if the server has lost it, and perhaps given its number to another.
  local number = ARGV[3]
  local other = whose(number)
  if other and other ~= who then number = redis.call('HINCRBY', META, 'announcements', 1) end
  tell(number, 0)
elseif what == 'unsettled' then
  -- One whose process is dead counts at once, although what it sent may still be on its way: it is
  -- settled now, and once more when its time is over.
  local numbers, told = {}, redis.call('HGETALL', ANNOUNCED)
  for index = 1, #told, 2 do
    local ends, by, settled = string.match(told[index + 1], '(%d+) (%S+) (%d)')
    if tonumber(ends) <= now() or (settled == '0' and not alive(by)) then
      numbers[#numbers + 1] = tonumber(told[index])
    end
  end
  return numbers
elseif what == 'acknowledged' then
  return tonumber(redis.call('HGET', META, 'acknowledged') or '0')
elseif what == 'direct' then
  local place = redis.call('HGET', META, 'direct')
  return place and tonumber(place)
end
