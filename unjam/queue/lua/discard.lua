-- Stale tickets: drop job and intermediate entry, unless the job runs elsewhere or is parked.
-- KEYS: rag:taken, rq:failed:rag_dlq, then per ticket: intermediate, job
-- ARGV: worker name, then ids
for i = 0, #ARGV - 2 do
  local inter, job, id = KEYS[3 + i * 2], KEYS[4 + i * 2], ARGV[2 + i]
  redis.call('HDEL', KEYS[1], id)
  redis.call('LREM', inter, 1, id)
  local held = redis.call('HMGET', job, 'status', 'worker_name')
  local elsewhere = held[1] == 'started' and held[2] ~= ARGV[1]
  if not elsewhere and not redis.call('ZSCORE', KEYS[2], id) then
    redis.call('DEL', job)
  end
end
return 1
