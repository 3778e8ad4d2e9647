-- Reads a conversation and its newest turns at one moment.
-- KEYS: state, turns   ARGV: 1 how many turns
local found = redis.call('HMGET', KEYS[1], 'state', 'revision', 'seq', 'turns')
if not found[1] then return {} end
local following = tonumber(found[4])
local newest = {}
for index = math.max(0, following - tonumber(ARGV[1])), following - 1 do
  local turn = redis.call('HGET', KEYS[2], index)
  if turn then newest[#newest + 1] = turn end
end
return {found[1], found[2], found[3], newest}
