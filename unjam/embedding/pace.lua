-- The twin of pace.py, shared by all processes; the constants come from there.
-- KEYS[1]: hash of one key group.
-- ARGV: operation, now ('' = the server's clock), minute_s, requests, tokens per minute, the
-- constants, then what the operation wants. Answers: numbers as strings.
local key = KEYS[1]
local operation = ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) + tonumber(t[2]) / 1e6
end
local minute = tonumber(ARGV[3])
local requests, tokens_limit = tonumber(ARGV[4]), tonumber(ARGV[5])
local C = cjson.decode(ARGV[6])
local KEEP_S = 3600

local names = {'requests_used', 'tokens_used', 'cut_rate', 'cut_at', 'grows_from', 'refusals',
  'paused_until', 'count', 'counted_at', 'counts_from', 'told_requests', 'told_tokens'}
local raw = redis.call('HMGET', key, unpack(names))
local s = {}
for i, name in ipairs(names) do s[name] = tonumber(raw[i] or '') or 0 end

local function str(x) return string.format('%.7f', x) end

local function save(...)
  local row = {}
  for _, name in ipairs({...}) do
    row[#row + 1] = name
    row[#row + 1] = str(s[name])
  end
  redis.call('HSET', key, unpack(row))
  redis.call('EXPIRE', key, math.max(KEEP_S, math.ceil(s.paused_until - now) + KEEP_S))
end

local function tighter(a, b)
  if a > 0 and b > 0 then return math.min(a, b) end
  return math.max(a, b)
end
requests = tighter(requests, s.told_requests)
tokens_limit = tighter(tokens_limit, s.told_tokens)
local ceiling = requests / minute

local function rate_now()
  if s.cut_rate <= 0 then return ceiling end
  local minutes = math.min(math.max(0, now - s.grows_from) / minute, 30)
  local rate = s.cut_rate * (C.back_off + C.growth * (2 ^ minutes - 1))
  if ceiling > 0 then rate = math.min(rate, ceiling) end
  return rate
end

local function charge(used, cost, rate, credit, grace)
  if rate <= 0 then return used, 0 end
  credit = math.max(credit, 1 / rate)
  used = math.max(used, now - credit)
  local wait = used + math.min(cost / rate, credit) - now - grace
  if wait <= 1e-6 then wait = 0 end
  return used + cost / rate, wait
end

local function rest(pause)
  s.paused_until = math.max(s.paused_until, now + pause)
  s.requests_used = math.max(s.requests_used, s.paused_until)
  s.tokens_used = math.max(s.tokens_used, s.paused_until)
  s.grows_from = math.max(s.grows_from, s.paused_until)
end

local function cut()
  local measure = C.measure * minute
  local measured = 0
  if s.count > 0 then
    local share = 1 - math.exp(-math.max(now - s.counts_from, 0.001) / measure)
    local decayed = s.count * math.exp(-math.max(now - s.counted_at, 0) / measure)
    measured = decayed / (measure * share)
  end
  local rate = rate_now()
  local base = measured
  if rate > 0 then base = math.min(math.max(measured, rate / 2), rate) end
  s.cut_rate = math.max(base, 1 / minute)
end

if operation == 'take' then
  local tokens, grace = tonumber(ARGV[7]), tonumber(ARGV[8])
  if s.paused_until > now then
    return {str(s.paused_until - now), str(now), 'pause', str(s.refusals), '0',
      str(s.told_requests), str(s.told_tokens)}
  end
  local rate = rate_now()
  local burst = C.burst
  if s.cut_rate > 0 and rate ~= ceiling then burst = C.learnt_burst end
  local requests_used, wait = charge(s.requests_used, 1, rate, burst * minute, grace)
  local tokens_used, tokens_wait =
    charge(s.tokens_used, tokens, tokens_limit / minute, C.burst * minute, grace)
  wait = math.max(wait, tokens_wait)
  local why = 'pace'
  if wait <= 0 then
    why = ''
    s.requests_used, s.tokens_used = requests_used, tokens_used
    if s.count <= 0 then s.counts_from = now end
    local passed = math.max(now - s.counted_at, 0)
    s.count = s.count * math.exp(-passed / (C.measure * minute)) + 1
    s.counted_at = now
    save('requests_used', 'tokens_used', 'count', 'counted_at', 'counts_from')
  end
  return {str(wait), str(now), why, str(s.refusals), str(rate),
    str(s.told_requests), str(s.told_tokens)}
elseif operation == 'give_back' then
  local rate = rate_now()
  if rate > 0 then s.requests_used = s.requests_used - 1 / rate end
  if tokens_limit > 0 then
    s.tokens_used = s.tokens_used - tonumber(ARGV[7]) * minute / tokens_limit
  end
  s.count = math.max(0, s.count - 1)
  save('requests_used', 'tokens_used', 'count')
  return {}
elseif operation == 'refused' then
  local sent_at, told = tonumber(ARGV[7]), tonumber(ARGV[8])
  local pause = told or C.first_pause_s
  if sent_at > s.cut_at then
    s.refusals = s.refusals + 1
    if s.refusals > 1 then
      local grown = C.again_s * 2 ^ math.min(s.refusals - 2, 30)
      pause = math.max(pause, math.min(grown, C.longest_pause_s))
    end
    if s.refusals <= C.cuts_in_a_row then cut() end
    s.cut_at = now
  end
  rest(pause)
  save('requests_used', 'tokens_used', 'cut_rate', 'cut_at', 'grows_from', 'refusals',
    'paused_until')
  return {str(s.paused_until - now)}
elseif operation == 'calm' then
  local told_requests, told_tokens = tonumber(ARGV[7]), tonumber(ARGV[8])
  s.refusals = 0
  if told_requests > 0 then s.told_requests = told_requests end
  if told_tokens > 0 then s.told_tokens = told_tokens end
  save('refusals', 'told_requests', 'told_tokens')
  return {}
elseif operation == 'rest' then
  rest(tonumber(ARGV[7]))
  save('requests_used', 'tokens_used', 'grows_from', 'paused_until')
  return {}
end
return redis.error_reply('unknown operation')
