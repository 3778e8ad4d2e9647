-- Renews a lease and, if a text is given, keeps the reply's text so far.
-- KEYS: state, partial   ARGV: 1 fence  2 lease in ms  3 partial (JSON) or ''  4 retention in ms
--       5 owner   6 the channel that wakes other servers, or ''
local found = redis.call('HMGET', KEYS[1], 'fence', 'owner')
if found[1] ~= ARGV[1] or found[2] ~= ARGV[5] then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[2]))
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[2], ARGV[3])
  if tonumber(ARGV[4]) > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
  if ARGV[6] ~= '' then redis.call('PUBLISH', ARGV[6], ARGV[5] .. ':partial') end
end
return 1
