-- Claimed tickets leave the intermediate list and appear as started in RQ's books.
-- KEYS: rag:taken, worker, then per ticket: intermediate, job, wip
-- ARGV: worker name, now (RQ's format), wip expiry (Unix s), life of the hash (s),
--       then per ticket: id, wip member
for i = 0, (#ARGV - 4) / 2 - 1 do
  local inter, job, wip = KEYS[3 + i * 3], KEYS[4 + i * 3], KEYS[5 + i * 3]
  local id, member = ARGV[5 + i * 2], ARGV[6 + i * 2]
  redis.call('LREM', inter, 1, id)
  redis.call('HDEL', KEYS[1], id)
  if redis.call('EXISTS', job) == 1 then
    redis.call('HSET', job, 'status', 'started', 'started_at', ARGV[2], 'last_heartbeat', ARGV[2],
      'worker_name', ARGV[1])
    -- A dead worker's job leaves the books by itself; beats of a live one keep it there.
    redis.call('EXPIRE', job, ARGV[4])
  end
  redis.call('ZADD', wip, ARGV[3], member)
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HSET', KEYS[2], 'state', 'busy')
end
return 1
