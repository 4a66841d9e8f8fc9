-- Taken tickets return to the head of their lanes. Given in reverse, so that their order is kept.
-- KEYS: rag:taken, then per ticket: intermediate, lane
-- ARGV: ids
local returned = 0
for i = 0, #ARGV - 1 do
  local inter, lane = KEYS[2 + i * 2], KEYS[3 + i * 2]
  redis.call('HDEL', KEYS[1], ARGV[1 + i])
  if redis.call('LREM', inter, 1, ARGV[1 + i]) == 1 then
    redis.call('LPUSH', lane, ARGV[1 + i])
    returned = returned + 1
  end
end
return returned
