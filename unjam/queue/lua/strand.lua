-- What dead workers took and did not start counts as absent from now on.
-- KEYS: rag:taken
-- ARGV: workers
-- Returns lane and id, alternating.
local dead = {}
for i = 1, #ARGV do
  dead[ARGV[i]] = true
end
local out = {}
redis.call('HDEL', KEYS[1], '') -- so that it may write in a full Redis, too: see take.lua
local records = redis.call('HGETALL', KEYS[1])
for i = 1, #records, 2 do
  local lane, worker = string.match(records[i + 1], '^%S+ (%S+) (.*)$')
  if worker and dead[worker] then
    redis.call('HSET', KEYS[1], records[i], '0 ' .. lane .. ' ' .. worker)
    out[#out + 1] = lane
    out[#out + 1] = records[i]
  end
end
return out
