-- Put tickets into their lanes, each unless its job exists already.
-- KEYS: rq:queues, rq:failed:rag_dlq, rag:taken, then per ticket:
--       job, lane, job of the sequence before, intermediate, rq:failed:<lane>
-- ARGV: now (RQ's format), description, then per ticket: id, lane name, data, id before
local queues, parked, taken = KEYS[1], KEYS[2], KEYS[3]
local pushed = 0
for i = 0, (#ARGV - 2) / 4 - 1 do
  local job, lane, before, inter, failed =
    KEYS[4 + i * 5], KEYS[5 + i * 5], KEYS[6 + i * 5], KEYS[7 + i * 5], KEYS[8 + i * 5]
  local id, name, data, id_before =
    ARGV[3 + i * 4], ARGV[4 + i * 4], ARGV[5 + i * 4], ARGV[6 + i * 4]
  if redis.call('EXISTS', job) == 0 then
    redis.call('HSET', job, 'data', data, 'status', 'queued', 'origin', name, 'created_at', ARGV[1],
      'enqueued_at', ARGV[1], 'timeout', '-1', 'description', ARGV[2])
    redis.call('RPUSH', lane, id)
    redis.call('SADD', queues, lane)
    pushed = pushed + 1
    -- What the sequence before left behind (its worker died, or RQ called it failed) goes.
    if not redis.call('ZSCORE', parked, id_before) then
      redis.call('DEL', before)
      redis.call('ZREM', failed, id_before)
    end
    if redis.call('HDEL', taken, id_before) == 1 then
      redis.call('LREM', inter, 1, id_before)
    end
  else
    redis.call('PERSIST', job)
  end
end
return pushed
