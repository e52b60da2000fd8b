-- The commands of a reader group, except for reading: the readers of one name are one group.
--
-- ARGV: command, name, epoch or "", and more as read below.

local command, name = ARGV[1], ARGV[2]

local function leave(consumer)
  if redis.call('HGET', META, 'catcher:' .. name) == consumer then
    redis.call('HDEL', META, 'catcher:' .. name)
  end
  local was_alive = redis.call('ZREM', ALIVE, consumer) == 1
  for _, pending in ipairs(group(name) and redis.call('XPENDING', STREAM, name)[4] or {}) do
    if pending[1] == consumer then
      if was_alive then count_deaths(DEATHS, 1) end  -- another one claims its pending items
      return
    end
  end
  if group(name) then redis.call('XGROUP', 'DELCONSUMER', STREAM, name, consumer) end
end

local function delete_dead_consumers()
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', STREAM, name)) do
    local consumer, pending = field(info, 'name'), field(info, 'pending')
    if pending == 0 and is_owner(consumer) and not alive(consumer) then
      redis.call('XGROUP', 'DELCONSUMER', STREAM, name, consumer)
    end
  end
end

if command == 'position' then
  local position = position_in_chain(name)
  -- A name that seems to be new may have existed before, and may lack what others have.
  if not position and tonumber(ARGV[4] or '0') > 0 and was_emptied() then return 0 end
  return position
elseif command == 'seek if new' then
  if not group(name) then make_group(name, tonumber(ARGV[4])) end
  delete_dead_consumers()
  return epoch(name)
elseif command == 'seek' or command == 'seek if known' then
  if command == 'seek if known' and not group(name) then return end
  -- Items that are pending for readers of the name are no longer theirs.
  redis.call('HDEL', META, 'late:' .. name, 'catcher:' .. name)
  if group(name) then redis.call('XGROUP', 'DESTROY', STREAM, name) end
  make_group(name, tonumber(ARGV[4]))
  redis.call('HINCRBY', META, 'epoch:' .. name, 1)
  return epoch(name)
elseif command == 'ack' then
  acknowledge(name, ARGV[3], optional(ARGV[4]), rest(5))
elseif command == 'leave' then
  leave(ARGV[4])
end
