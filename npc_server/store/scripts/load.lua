-- Reads a conversation and the newest turns of its branch at one moment.
-- KEYS: state, turns   ARGV: 1 how many turns
local found = redis.call('HMGET', KEYS[1], 'state', 'revision', 'seq', 'turns', 'path')
if not found[1] then return {} end
local path = found[5] and cjson.decode(found[5]) or {inherited = {}, first = 0}
local runs = path.inherited
runs[#runs + 1] = {path.first, tonumber(found[4]) - 1}
local newest, left = {}, tonumber(ARGV[1])
for run = #runs, 1, -1 do
  for index = runs[run][2], runs[run][1], -1 do
    if left == 0 then break end
    left = left - 1
    local turn = redis.call('HGET', KEYS[2], index)
    if turn then newest[#newest + 1] = turn end
  end
end
return {found[1], found[2], found[3], newest}
