-- Jobs that wait in one lane go to the tail of another.
-- KEYS: lane, target lane, rq:queues, then per id: job
-- ARGV: name of the target, then ids
-- Returns the ids that were moved, in the order in which they stood. What is in somebody's hand, or
-- has no job any more, is left out; of the latter the lane is rid, too.
local lane, target = KEYS[1], KEYS[2]
local wanted, count = {}, #ARGV - 1
for i = 1, count do
  wanted[ARGV[i + 1]] = KEYS[i + 3]
end
local out, kept, found = {}, {}, 0
for _, id in ipairs(redis.call('LRANGE', lane, 0, -1)) do
  local job = wanted[id]
  if not job then
    kept[#kept + 1] = id
  else
    found = found + 1
    if job ~= '' and redis.call('EXISTS', job) == 1 then
      out[#out + 1] = id
      wanted[id] = '' -- rung twice: once is enough
    end
  end
end
if found == 0 then
  return out
end
local function append(key, ids)
  for i = 1, #ids, 5000 do
    redis.call('RPUSH', key, unpack(ids, i, math.min(i + 4999, #ids)))
  end
end
redis.call('DEL', lane)
append(lane, kept)
append(target, out)
for i = 1, count do
  if wanted[ARGV[i + 1]] == '' then
    redis.call('HSET', KEYS[i + 3], 'origin', ARGV[1])
  end
end
if #out > 0 then
  redis.call('SADD', KEYS[3], target)
end
return out
