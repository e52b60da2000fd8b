-- Finds the commands that the user has no right to run, among those of the other scripts and of the
-- connections. Changes nothing: a command that writes has arguments that it rejects, or a type that
-- the server's run does not have.
--
-- KEYS: the server's run. Returns the names of the commands.

local SERVER = KEYS[1]

local COMMANDS = {
  {'EXISTS', SERVER},
  {'GET', SERVER},
  {'HDEL', SERVER, ''},
  {'HEXISTS', SERVER, ''},
  {'HGET', SERVER, ''},
  {'HGETALL', SERVER},
  {'HINCRBY', SERVER, 'run', 'x'},
  {'HKEYS', SERVER},
  {'HLEN', SERVER},
  {'HMGET', SERVER, ''},
  {'HSET', SERVER, '', '', ''},
  {'LINDEX', SERVER, 0},
  {'LLEN', SERVER},
  {'LPOP', SERVER},
  {'RENAMENX', SERVER, SERVER},
  {'RPUSH', SERVER, ''},
  {'SADD', SERVER, ''},
  {'SCAN', 0, 'COUNT', 1},
  {'SET', SERVER, '', 'EX', 'x'},
  {'SMEMBERS', SERVER},
  {'TIME'},
  {'XACK', SERVER, 'x', '0'},
  {'XADD', SERVER, '*', '', ''},
  {'XCLAIM', SERVER, 'x', 'x', 0, '0'},
  {'XDEL', SERVER, '0'},
  {'XGROUP', 'CREATE', SERVER, 'x', '0'},
  {'XGROUP', 'DELCONSUMER', SERVER, 'x', 'x'},
  {'XGROUP', 'DESTROY', SERVER, 'x'},
  {'XGROUP', 'SETID', SERVER, 'x', '0'},
  {'XINFO', 'CONSUMERS', SERVER, 'x'},
  {'XINFO', 'GROUPS', SERVER},
  {'XINFO', 'STREAM', SERVER},
  {'XLEN', SERVER},
  {'XPENDING', SERVER, 'x'},
  {'XRANGE', SERVER, '-', '+'},
  {'XREAD', 'COUNT', 'x', 'STREAMS', SERVER, '0'},
  {'XREADGROUP', 'GROUP', 'x', 'x', 'COUNT', 'x', 'STREAMS', SERVER, '>'},
  {'XREVRANGE', SERVER, '+', '-'},
  {'XTRIM', SERVER, 'MAXLEN', 0},
  {'ZADD', SERVER, 0, ''},
  {'ZINCRBY', SERVER, 0, ''},
  {'ZRANGE', SERVER, 0, 0},
  {'ZRANGEBYSCORE', SERVER, 0, 0},
  {'ZREM', SERVER, ''},
  {'ZREMRANGEBYSCORE', SERVER, 0, 0},
  {'ZREVRANGE', SERVER, 0, 0},
  {'ZSCORE', SERVER, ''},
}

-- Returns whether an error is about a right. Its text depends on the version of the server.
local function is_about_rights(text)
  for _, part in ipairs({"can't run this command", 'ACL failure', 'NOPERM'}) do
    if string.find(text, part, 1, true) then return true end
  end
  return false
end

local missing = {}
-- Without the key, a command could create it.
local size = redis.pcall('HLEN', SERVER)
if size ~= 0 then
  for _, command in ipairs(COMMANDS) do
    local result = redis.pcall(unpack(command))
    if type(result) == 'table' and result.err and is_about_rights(tostring(result.err)) then
      local subcommand = string.find('XGROUP XINFO', command[1], 1, true) and ' ' .. command[2] or ''
      missing[#missing + 1] = command[1] .. subcommand
    end
  end
end
return missing
