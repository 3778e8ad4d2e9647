-- Puts a conversation back as it was saved, whole; a reply that is being spoken is fenced out.
-- KEYS: state, turns, events, partial
-- ARGV: 1 state (JSON)   2 branch (JSON)   3 the next index   4 retention in ms, 0 keeps for ever
--       5 number of turns n, then n pairs (index, JSON)
--       then number of events m, then m pairs (audience JSON, event JSON)
--       then the channel to wake others by, or '', and who does this
local state, turns, events, partial = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local found = redis.call('HMGET', state, 'revision', 'seq', 'fence')
local revision, seq = tonumber(found[1] or '0') + 1, tonumber(found[2] or '0')
redis.call('DEL', turns, events, partial)
local at = 5
for n = 1, tonumber(ARGV[at]) do
  redis.call('HSET', turns, ARGV[at + 1], ARGV[at + 2])
  at = at + 2
end
at = at + 1
for n = 1, tonumber(ARGV[at]) do
  seq = seq + 1
  redis.call('XADD', events, seq .. '-0', 'audience', ARGV[at + 1], 'event', ARGV[at + 2])
  at = at + 2
end
redis.call('HSET', state, 'state', ARGV[1], 'path', ARGV[2], 'turns', ARGV[3], 'revision', revision,
  'seq', seq, 'fence', tonumber(found[3] or '0') + 1, 'owner', '', 'until', 0, 'commit', '')
local retention = tonumber(ARGV[4])
for _, key in ipairs({state, turns, events}) do
  if retention > 0 then redis.call('PEXPIRE', key, retention) else redis.call('PERSIST', key) end
end
at = at + 1
if ARGV[at] ~= '' then redis.call('PUBLISH', ARGV[at], ARGV[at + 1] .. ':' .. revision) end
return revision
