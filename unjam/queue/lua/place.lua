-- (Included by others.) Put jobs into a lane so that users take turns: start-time fair queueing
-- (P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996) with jobs of equal cost.
-- A job's turn is one after its user's last, and never before the turn that is being served, which
-- is that of the lane's head. The lane is sorted by turn: a user's j-th waiting job stands behind
-- at most j of each other user. Whoever takes from the head need know nothing of it.
-- At most SINGLES jobs are put in one by one, at the cost of a walk from the head; more of them
-- by writing the part of the lane anew in which they go.
local SINGLES = 4
local USERS_KEPT = 256

local function append(key, ids)
  for i = 1, #ids, 5000 do
    redis.call('RPUSH', key, unpack(ids, i, math.min(i + 4999, #ids)))
  end
end

local function turn_of(jobs, id)
  return tonumber(id and redis.call('HGET', jobs .. id, 'turn') or 0) or 0
end

local function splice(lane, length, middle)
  local first, last = middle[1].place, middle[#middle].place
  local from_head = last <= length - first
  local rest
  if from_head then
    rest = redis.call('LRANGE', lane, 0, last - 1)
    redis.call('LTRIM', lane, last, -1)
  else
    rest = redis.call('LRANGE', lane, first, -1)
    redis.call('LTRIM', lane, 0, first - 1)
  end
  local merged, next_one = {}, 1
  for i = 0, #rest do
    local place = from_head and i or first + i
    while next_one <= #middle and middle[next_one].place == place do
      merged[#merged + 1] = middle[next_one].id
      next_one = next_one + 1
    end
    merged[#merged + 1] = rest[i + 1]
  end
  if not from_head then
    append(lane, merged)
    return
  end
  local turned = {}
  for i = #merged, 1, -1 do
    turned[#turned + 1] = merged[i]
  end
  for i = 1, #turned, 5000 do
    redis.call('LPUSH', lane, unpack(turned, i, math.min(i + 4999, #turned)))
  end
end

-- items: {id, user} each; their jobs exist. jobs: prefix of the jobs' keys.
local function place(lane, turns, jobs, items)
  local length = redis.call('LLEN', lane)
  if length == 0 then
    redis.call('DEL', turns)
  end
  -- What a person brought to the front is not sorted: the search begins behind it.
  local start, now = 0, redis.call('HGET', turns, '\nnow')
  if now then
    local place = redis.call('LPOS', lane, redis.call('HGET', turns, '\nlast'))
    start = place and place + 1 or 0
    if not place then
      redis.call('HDEL', turns, '\nnow', '\nlast')
    end
  end
  now = start > 0 and tonumber(now) or turn_of(jobs, redis.call('LINDEX', lane, 0))
  local last = start < length and turn_of(jobs, redis.call('LINDEX', lane, -1)) or 0
  local latest = {}
  for n, item in ipairs(items) do
    local user = item.user
    local after = latest[user] or tonumber(redis.call('HGET', turns, user) or 0) or 0
    latest[user] = math.max(now, after + 1)
    item.turn, item.n = latest[user], n
    redis.call('HSET', jobs .. item.id, 'turn', item.turn)
  end
  for user, turn in pairs(latest) do
    redis.call('HSET', turns, user, turn)
  end
  table.sort(items, function(a, b)
    return a.turn < b.turn or (a.turn == b.turn and a.n < b.n)
  end)
  local tail, middle = {}, {}
  for _, item in ipairs(items) do
    if item.turn >= last then
      tail[#tail + 1] = item.id
    else
      middle[#middle + 1] = item
    end
  end
  append(lane, tail)
  local low, turn = start, 0
  for _, item in ipairs(middle) do -- the first place whose turn is later
    local high = item.turn == turn and low or length - 1
    turn = item.turn
    while low < high do
      local half = math.floor((low + high) / 2)
      if turn_of(jobs, redis.call('LINDEX', lane, half)) > item.turn then
        high = half
      else
        low = half + 1
      end
    end
    item.place = low
  end
  if #middle > SINGLES then
    splice(lane, length + #tail, middle)
  else
    for i = #middle, 1, -1 do
      redis.call('LINSERT', lane, 'BEFORE', redis.call('LINDEX', lane, middle[i].place),
        middle[i].id)
    end
  end
  if redis.call('HLEN', turns) > USERS_KEPT then -- some of those who do not wait any more
    local some = redis.call('HRANDFIELD', turns, 32, 'WITHVALUES')
    for i = 1, #some, 2 do
      local user = some[i]
      if user ~= '\nnow' and user ~= '\nlast' and tonumber(some[i + 1]) <= now then
        redis.call('HDEL', turns, some[i])
      end
    end
  end
end
