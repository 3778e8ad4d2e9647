-- Reads a conversation with all its turns at one moment.
-- KEYS: state, turns
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {} end
return {state, redis.call('HVALS', KEYS[2])}
