-- Move up to a limit of ids from the lanes, in order, into their intermediate lists.
-- KEYS: rq:suspended, rag:taken, then per lane: lane, intermediate
-- ARGV: limit
-- Returns index of the lane (from 0) and id, alternating.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {}
end
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local room = tonumber(ARGV[1])
local out = {}
for i = 0, (#KEYS - 2) / 2 - 1 do
  local lane, inter = KEYS[3 + i * 2], KEYS[4 + i * 2]
  while room > 0 do
    local id = redis.call('LMOVE', lane, inter, 'LEFT', 'RIGHT')
    if not id then
      break
    end
    if redis.call('ZADD', KEYS[2], 'NX', now, id) == 1 then
      out[#out + 1] = i
      out[#out + 1] = id
      room = room - 1
    else
      redis.call('LREM', inter, 1, id) -- rung twice: somebody holds it already
    end
  end
end
return out
