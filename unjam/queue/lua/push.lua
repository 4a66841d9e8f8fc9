--#include place
-- Put tickets into their lanes, each unless its job exists already; users take turns.
-- KEYS: rq:queues, rq:failed:rag_dlq, rag:taken, prefix of jobs, then per ticket:
--       job, lane, turns of the lane, job of the sequence before, intermediate, rq:failed:<lane>
-- ARGV: now (RQ's format), description, then per ticket: id, lane name, data, id before, user
local queues, parked, taken = KEYS[1], KEYS[2], KEYS[3]
local pushed, lanes = 0, {}
for i = 0, (#ARGV - 2) / 5 - 1 do
  local job, lane, turns, before, inter, failed =
    KEYS[5 + i * 6], KEYS[6 + i * 6], KEYS[7 + i * 6], KEYS[8 + i * 6], KEYS[9 + i * 6],
    KEYS[10 + i * 6]
  local id, name, data, id_before, user =
    ARGV[3 + i * 5], ARGV[4 + i * 5], ARGV[5 + i * 5], ARGV[6 + i * 5], ARGV[7 + i * 5]
  if redis.call('EXISTS', job) == 0 then
    redis.call('HSET', job, 'data', data, 'status', 'queued', 'origin', name, 'created_at', ARGV[1],
      'enqueued_at', ARGV[1], 'timeout', '-1', 'description', ARGV[2])
    lanes[lane] = lanes[lane] or { turns = turns, items = {} }
    table.insert(lanes[lane].items, { id = id, user = user })
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
for lane, some in pairs(lanes) do
  place(lane, some.turns, KEYS[4], some.items)
  redis.call('SADD', queues, lane)
end
return pushed
