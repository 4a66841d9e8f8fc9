-- The audit that began under this epoch is whole, unless the data was lost meanwhile.
-- KEYS: rag:epoch, rag:epoch:begun, rag:epoch:whole
-- ARGV: epoch
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local mark = redis.call('GET', KEYS[2])
if not mark then
  return 0
end
redis.call('SET', KEYS[3], mark)
return 1
