-- Dead letters stand in the list and in the failed registry of rag_dlq, under one id a document.
-- KEYS: rq:queues, list of rag_dlq, rq:failed:rag_dlq, rag:parked, then per ticket: job
-- ARGV: now (RQ's format), description, origin, then per ticket: document, id, data
-- Returns the older ids that were replaced. One that left the registry while still listed was
-- requeued by RQ's own tools: it is left alone until the reconciler has seen it.
local out = {}
local queues, list, failed, parked = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
for i = 0, (#ARGV - 3) / 3 - 1 do
  local job = KEYS[5 + i]
  local document, id, data = ARGV[4 + i * 3], ARGV[5 + i * 3], ARGV[6 + i * 3]
  local older = redis.call('HGET', parked, document)
  if older and older ~= id then
    redis.call('LREM', list, 0, older)
    redis.call('ZREM', failed, older)
    out[#out + 1] = older
  end
  local known = older == id
  local registered = known and redis.call('ZSCORE', failed, id)
  local listed = known and redis.call('LPOS', list, id)
  if not listed or registered then
    redis.call('HSET', job, 'data', data, 'status', 'failed', 'origin', ARGV[3],
      'created_at', ARGV[1], 'enqueued_at', ARGV[1], 'ended_at', ARGV[1], 'timeout', '-1',
      'failure_ttl', '-1', 'description', ARGV[2])
    redis.call('PERSIST', job)
    redis.call('ZADD', failed, -1, id)
    if not listed then
      redis.call('RPUSH', list, id)
    end
    redis.call('HSET', parked, document, id)
  end
end
redis.call('SADD', queues, list)
return out
