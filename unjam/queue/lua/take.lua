-- Move up to a limit of ids from the lanes, in order, into their intermediate lists.
-- KEYS: rq:suspended, rag:taken, then per lane: lane, intermediate, wip, workers of the lane
-- ARGV: limit, worker, jobs it holds, least share, 1 when its share is no bound,
--       then per lane: name
-- Returns index of the lane (from 0) and id, alternating; {-1} when the worker holds its share.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {}
end
-- A script that has begun to write may go on in a full Redis, which has to drain. (Flags in a
-- shebang would say the same from Redis 7 on; before, they are a syntax error.)
redis.call('HDEL', KEYS[2], '')
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local room = tonumber(ARGV[1])
local least = tonumber(ARGV[4])
local lanes = (#KEYS - 2) / 4
if room > least then
  -- A short backlog is shared: whoever polls first must not leave the others idle.
  local waiting, at_work, served_by = 0, redis.call('HLEN', KEYS[2]), {}
  for i = 0, lanes - 1 do
    waiting = waiting + redis.call('LLEN', KEYS[3 + i * 4])
    at_work = at_work + redis.call('ZCARD', KEYS[5 + i * 4])
    served_by[#served_by + 1] = KEYS[6 + i * 4]
  end
  local live = 0
  for _, worker in ipairs(redis.call('SUNION', unpack(served_by))) do
    live = live + redis.call('EXISTS', worker) -- a dead one's entry expires, its membership not
  end
  local share = math.ceil((waiting + at_work) / math.max(1, live))
  local left = math.max(least, share) - tonumber(ARGV[3])
  if waiting > 0 and left <= 0 and ARGV[5] ~= '1' then
    return { -1 }
  end
  if ARGV[5] == '1' then
    left = math.max(least, left)
  end
  room = math.min(room, math.max(1, left))
end
local out = {}
for i = 0, lanes - 1 do
  local lane, inter = KEYS[3 + i * 4], KEYS[4 + i * 4]
  while room > 0 do
    local id = redis.call('LMOVE', lane, inter, 'LEFT', 'RIGHT')
    if not id then
      break
    end
    local record = string.format('%.3f %s %s', now, ARGV[6 + i], ARGV[2])
    if redis.call('HSETNX', KEYS[2], id, record) == 1 then
      out[#out + 1] = i
      out[#out + 1] = id
      room = room - 1
    else
      redis.call('LREM', inter, 1, id) -- rung twice: somebody holds it already
    end
  end
end
return out
