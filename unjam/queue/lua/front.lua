-- Bring waiting jobs to the front of their lane, in the order given. Whoever comes later stands
-- behind them, unless turns are given (one each, growing, counted from the one being served).
-- KEYS: lane, turns of the lane, prefix of jobs
-- ARGV: ids and turns, each joined by line feeds; no turns: ''
-- Returns the places in ARGV (from 0) of what does not wait any more.
local lane, turns, jobs = KEYS[1], KEYS[2], KEYS[3]
local ids, wanted = {}, {}
for id in string.gmatch(ARGV[1], '[^\n]+') do
  ids[#ids + 1] = id
  wanted[id] = wanted[id] or #ids
end
local listed = redis.call('LRANGE', lane, 0, -1)
local now = 0
if listed[1] then
  now = redis.call('HGET', turns, '\nnow') or redis.call('HGET', jobs .. listed[1], 'turn') or 0
end
local rest, there = {}, {}
for _, id in ipairs(listed) do
  local n = wanted[id]
  if n then
    there[n] = true
  else
    rest[#rest + 1] = id
  end
end
local line, absent = {}, {}
for n, id in ipairs(ids) do
  if there[n] then
    line[#line + 1] = id
  else
    absent[#absent + 1] = n - 1
  end
end
if #line == 0 then
  return absent
end
if ARGV[2] == '' then
  redis.call('HSET', turns, '\nnow', now, '\nlast', line[#line])
else
  redis.call('HDEL', turns, '\nnow', '\nlast')
  local n = 0
  for after in string.gmatch(ARGV[2], '[^\n]+') do
    n = n + 1
    if there[n] and redis.call('EXISTS', jobs .. ids[n]) == 1 then
      redis.call('HSET', jobs .. ids[n], 'turn', now + after)
    end
  end
end
redis.call('DEL', lane)
for _, some in ipairs({ line, rest }) do
  for i = 1, #some, 5000 do
    redis.call('RPUSH', lane, unpack(some, i, math.min(i + 4999, #some)))
  end
end
return absent
