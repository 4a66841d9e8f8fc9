-- Requeued dead letters were seen: they leave rag_dlq, unless they died again under another id.
-- KEYS: list of rag_dlq, rq:failed:rag_dlq, rag:parked
-- ARGV: per letter: document, id
-- Returns the ids whose jobs are to be deleted.
local out = {}
for i = 1, #ARGV, 2 do
  local document, id = ARGV[i], ARGV[i + 1]
  redis.call('LREM', KEYS[1], 1, id)
  redis.call('ZREM', KEYS[2], id)
  if redis.call('HGET', KEYS[3], document) == id then
    redis.call('HDEL', KEYS[3], document)
  end
  out[#out + 1] = id
end
return out
