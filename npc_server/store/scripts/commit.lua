-- Commits one change of a conversation, or nothing of it.
-- KEYS: state, turns, events, partial, answers, and the command's answer key where there is one
-- ARGV: 1 expected revision   2 state (JSON)         3 retention in ms, 0 keeps for ever
--       4 owner               5 take the lease (1), from whom ever (2)   6 release it (1)
--       7 lease in ms
--       8 fence that the caller holds, or ''         9 newest turns to keep
--       10 newest events to keep   11 answer ('' = none)   12 answer's life in ms
--       13 a token of this commit: sent again after a lost answer, it is not done twice
--       14 the branch: runs of turn indices that it shares and the first of its own (JSON)
--       15 the channel that wakes other servers, or ''
--       16 number of turns n, then n pairs (index, JSON)
--       then number of events m, then m pairs (audience JSON, event JSON)
local state, turns, events, partial, answers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local answer = KEYS[6]

local found = redis.call('HMGET', state, 'revision', 'seq', 'fence', 'owner', 'until', 'commit')
if found[6] == ARGV[13] then return {'done', found[1], found[2], found[3]} end

if answer then
  local known = redis.call('GET', answer)
  if known then return {'repeated', known} end
end

local revision, seq = tonumber(found[1] or '0'), tonumber(found[2] or '0')
local fence, owner, lease_until = tonumber(found[3] or '0'), found[4], tonumber(found[5] or '0')

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A fence goes first: whoever lost the lease may not even try again.
local others = owner and owner ~= '' and owner ~= ARGV[4]
if ARGV[8] ~= '' and (tonumber(ARGV[8]) ~= fence or others) then
  return {'fenced', tostring(fence)}
end
if revision ~= tonumber(ARGV[1]) then return {'conflict', tostring(revision)} end
if ARGV[5] ~= '0' then
  if ARGV[5] == '1' and others and lease_until > now then
    return {'owned', tostring(lease_until - now)}
  end
  fence = fence + 1
  owner = ARGV[4]
  lease_until = now + tonumber(ARGV[7])
end
if ARGV[6] == '1' then owner, lease_until = '', 0 end

local at = 16
local count = tonumber(ARGV[at])
local following = tonumber(redis.call('HGET', state, 'turns') or '0')
for n = 1, count do
  local index = tonumber(ARGV[at + 1])
  redis.call('HSET', turns, index, ARGV[at + 2])
  redis.call('HDEL', turns, index - tonumber(ARGV[9]))
  following = math.max(following, index + 1)
  at = at + 2
end

at = at + 1
for n = 1, tonumber(ARGV[at]) do
  seq = seq + 1
  redis.call('XADD', events, 'MAXLEN', '~', ARGV[10], seq .. '-0',
    'audience', ARGV[at + 1], 'event', ARGV[at + 2])
  at = at + 2
end

revision = revision + 1
redis.call('HSET', state, 'state', ARGV[2], 'turns', following, 'path', ARGV[14], 'commit', ARGV[13], 'revision', revision, 'seq', seq,
  'fence', fence, 'owner', owner or '', 'until', lease_until)
local ended = ARGV[6] == '1' and ARGV[5] ~= '2'
if ARGV[5] == '2' or (ended and ARGV[15] == '') then redis.call('DEL', partial) end
if answer then
  local life = tonumber(ARGV[12])
  redis.call('SET', answer, ARGV[11], 'PX', life)
  redis.call('ZREMRANGEBYSCORE', answers, '-inf', now)
  redis.call('ZADD', answers, now + life, answer)
end
local retention = tonumber(ARGV[3])
for _, key in ipairs({state, turns, events, partial, answers}) do
  if retention > 0 then redis.call('PEXPIRE', key, retention) else redis.call('PERSIST', key) end
end
-- Other servers read the end of a reply from what was kept of it.
if ended then redis.call('PEXPIRE', partial, 10000) end
if ARGV[15] ~= '' then redis.call('PUBLISH', ARGV[15], ARGV[4] .. ':' .. revision) end
return {'done', tostring(revision), tostring(seq), tostring(fence)}
