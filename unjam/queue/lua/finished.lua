-- Ended tickets leave RQ's books.
-- KEYS: rag:taken, worker, rq:failed:rag_dlq, then per ticket: intermediate, job, wip
-- ARGV: field of the worker to count in, state of the worker, then per ticket: id, wip member
local ended = 0
for i = 0, (#ARGV - 2) / 2 - 1 do
  local inter, job, wip = KEYS[4 + i * 3], KEYS[5 + i * 3], KEYS[6 + i * 3]
  local id, member = ARGV[3 + i * 2], ARGV[4 + i * 2]
  if redis.call('HDEL', KEYS[1], id) == 1 then
    redis.call('LREM', inter, 1, id)
  end
  redis.call('ZREM', wip, member)
  if not redis.call('ZSCORE', KEYS[3], id) then
    redis.call('DEL', job)
  end
  ended = ended + 1
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HINCRBY', KEYS[2], ARGV[1], ended)
  redis.call('HSET', KEYS[2], 'state', ARGV[2])
end
return ended
