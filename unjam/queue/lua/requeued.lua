-- Ids of a part of the dead letters' list that are not in the failed registry.
-- KEYS: list of rag_dlq, rq:failed:rag_dlq
-- ARGV: first, last index
local out = {}
for _, id in ipairs(redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2])) do
  if not redis.call('ZSCORE', KEYS[2], id) then
    out[#out + 1] = id
  end
end
return out
