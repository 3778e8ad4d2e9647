-- Deletes a conversation and tells so.
-- KEYS: state, turns, events, partial, answers
-- ARGV: 1 the channel that wakes other servers, or ''   2 owner
for _, answer in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do redis.call('DEL', answer) end
redis.call('DEL', unpack(KEYS))
if ARGV[1] ~= '' then redis.call('PUBLISH', ARGV[1], ARGV[2] .. ':gone') end
return 1
