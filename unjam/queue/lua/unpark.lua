-- Documents that are dead no more leave rag_dlq. Returns the ids they stood under.
-- KEYS: list of rag_dlq, rq:failed:rag_dlq, rag:parked
-- ARGV: document ids
local out = {}
for i = 1, #ARGV do
  local id = redis.call('HGET', KEYS[3], ARGV[i])
  if id then
    redis.call('LREM', KEYS[1], 0, id)
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[3], ARGV[i])
    out[#out + 1] = id
  end
end
return out
