-- Somebody emptied the list of the dead letters: forget the rest, it is written anew.
-- KEYS: list of rag_dlq, rq:failed:rag_dlq, rag:parked
-- Returns the ids whose jobs are to be deleted.
if redis.call('LLEN', KEYS[1]) > 0 then
  return {}
end
local out = redis.call('HVALS', KEYS[3])
redis.call('DEL', KEYS[2], KEYS[3])
return out
