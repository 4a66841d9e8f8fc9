-- Bring waiting jobs to the front of their lane, in the order given.
-- KEYS: lane, prefix of jobs
-- ARGV: per job: id, how many turns after the one that is being served
-- Returns the ids that are in front now; what does not wait any more is left out.
local lane, jobs = KEYS[1], KEYS[2]
local listed, there = redis.call('LRANGE', lane, 0, -1), {}
for _, id in ipairs(listed) do
  there[id] = true
end
local now = tonumber(listed[1] and redis.call('HGET', jobs .. listed[1], 'turn') or 0) or 0
local out, line = {}, {}
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  if there[id] then
    there[id] = false
    out[#out + 1] = id
    line[#line + 1] = id
    if redis.call('EXISTS', jobs .. id) == 1 then
      redis.call('HSET', jobs .. id, 'turn', now + ARGV[i + 1])
    end
  end
end
for _, id in ipairs(listed) do
  if there[id] then
    line[#line + 1] = id
  end
end
redis.call('DEL', lane)
for i = 1, #line, 5000 do
  redis.call('RPUSH', lane, unpack(line, i, math.min(i + 4999, #line)))
end
return out
