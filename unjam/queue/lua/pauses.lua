-- The pauses as RQ's tools and ours show them. A suspension that somebody else made stays.
-- KEYS: rag:paused, rq:suspended
-- ARGV: value that marks our suspension, 1 to end any suspension, then lanes ("*": all)
redis.call('DEL', KEYS[1])
local every = false
for i = 3, #ARGV do
  redis.call('SADD', KEYS[1], ARGV[i])
  every = every or ARGV[i] == '*'
end
local now = redis.call('GET', KEYS[2])
if every and not now then
  redis.call('SET', KEYS[2], ARGV[1])
elseif not every and now and (now == ARGV[1] or ARGV[2] == '1') then
  redis.call('DEL', KEYS[2])
end
return 1
