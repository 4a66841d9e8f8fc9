--#include place
-- Jobs that wait in one lane go to another, where they take their turns.
-- KEYS: lane, target lane, turns of the target, rq:queues, prefix of jobs
-- ARGV: name of the target, then per job: id, user
-- Returns the ids that were moved, in the order in which they stood. What is in somebody's hand, or
-- has no job any more, is left out; of the latter the lane is rid, too.
local lane, target, jobs = KEYS[1], KEYS[2], KEYS[5]
local wanted = {}
for i = 2, #ARGV, 2 do
  wanted[ARGV[i]] = ARGV[i + 1]
end
local out, items, kept, found = {}, {}, {}, false
for _, id in ipairs(redis.call('LRANGE', lane, 0, -1)) do
  local user = wanted[id]
  if user == nil then
    kept[#kept + 1] = id
  else
    found = true
    if user and redis.call('EXISTS', jobs .. id) == 1 then
      out[#out + 1] = id
      items[#items + 1] = { id = id, user = user }
      wanted[id] = false -- rung twice: once is enough
    end
  end
end
if not found then
  return out
end
redis.call('DEL', lane)
append(lane, kept)
for _, id in ipairs(out) do
  redis.call('HSET', jobs .. id, 'origin', ARGV[1])
end
if #out > 0 then
  place(target, KEYS[3], jobs, items)
  redis.call('SADD', KEYS[4], target)
end
return out
