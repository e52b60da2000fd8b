-- What there is to say about a name besides handing out its items.
--
-- ARGV: what, name, epoch or "", and more as it comes below.

local what, name = ARGV[1], ARGV[2]

local function leave(worker)
  if redis.call('HGET', META, 'catcher:' .. name) == worker then
    redis.call('HDEL', META, 'catcher:' .. name)
  end
  local lived = redis.call('ZREM', ALIVE, worker) == 1
  for _, consumer in ipairs(group(name) and redis.call('XPENDING', STREAM, name)[4] or {}) do
    if consumer[1] == worker then
      if lived then redis.call('INCR', DEATHS) end  -- for others to take over what it has
      return
    end
  end
  if group(name) then redis.call('XGROUP', 'DELCONSUMER', STREAM, name, worker) end
end

local function sweep()
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', STREAM, name)) do
    local who, pending = field(consumer, 'name'), field(consumer, 'pending')
    if pending == 0 and string.sub(who, 1, 9) == 'pythpeer-' and not alive(who) then
      redis.call('XGROUP', 'DELCONSUMER', STREAM, name, who)
    end
  end
end

if what == 'place' then
  return place_in_chain(name)
elseif what == 'join' then
  -- Stand at a place, if nobody of that name stands anywhere.
  if not group(name) then make_group(name, tonumber(ARGV[4])) end
  sweep()
  return epoch(name)
elseif what == 'seek' then
  -- Send everybody of that name to a place. What they have in hand, they have no longer.
  redis.call('HDEL', META, 'late:' .. name, 'catcher:' .. name)
  if group(name) then redis.call('XGROUP', 'DESTROY', STREAM, name) end
  make_group(name, tonumber(ARGV[4]))
  return redis.call('HINCRBY', META, 'epoch:' .. name, 1)
elseif what == 'ack' then
  acknowledge(name, optional(ARGV[3]), optional(ARGV[4]), rest(5))
elseif what == 'leave' then
  leave(ARGV[4])
end
