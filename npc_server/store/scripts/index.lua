-- Notes conversations in the index of their world, and takes out those that are gone.
-- KEYS: index (sorted set: ids by when they were last known to be there)
-- ARGV: 1 retention in ms, 0 keeps for ever   2 ids gone that were noted this long ago leave, in ms
--       3 how many to return of those not known to be there for the whole retention
--       4 number of ids n, then n ids to note; the rest: ids that are gone
local index = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local retention = tonumber(ARGV[1])

local last = 4 + tonumber(ARGV[4])
for n = 5, last do redis.call('ZADD', index, now, ARGV[n]) end
for n = last + 1, #ARGV do
  local noted = redis.call('ZSCORE', index, ARGV[n])
  if noted and tonumber(noted) <= now - tonumber(ARGV[2]) then redis.call('ZREM', index, ARGV[n]) end
end
if retention == 0 then
  redis.call('PERSIST', index)
  return {}
end
redis.call('PEXPIRE', index, retention)
return redis.call('ZRANGEBYSCORE', index, '-inf', now - retention, 'LIMIT', 0, ARGV[3])
