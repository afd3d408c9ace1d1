"""The Lua scripts: what Redis has to decide in one step.

Rules that every script keeps:

* The first write is the one that may fail (XADD): its error leaves before anything else is done.
  Redis decides about memory and replicas at a script's first write, so what follows it succeeds.
* Every key is declared, so that ACLs and Redis Cluster can judge the call before it runs.
* Nothing converts a position to a number: a Lua number is a double, exact only up to 2^53.

XADD alone is not compare-and-append: it accepts holes, creates a key that was deleted, and goes on
with any history whose newest ID is smaller (seen on 6.2.14 and 7.0.15).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1


@dataclass(frozen=True, slots=True)
class Script:
    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # SHA-1 is Redis's name for a script, not a safeguard.
        digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


_WRITE = """
-- KEYS: 1 log, 2 head.
-- ARGV: 1 incarnation, 2 position, 3 h, 4 time, 5 format, 6 entry,
--       7 "1" if 8 (owner) replaces the head's.
local found = redis.call('HMGET', KEYS[2], 'incarnation', 'position', 'h')

local function head_is(incarnation, position, h)
  return found[1] == incarnation and found[2] == position and found[3] == h
end

local function refused()
  return {'refused', found[1] or '', found[2] or '', found[3] or ''}
end

local function write(option)
  local id
  if option then
    id = redis.pcall('XADD', KEYS[1], option, ARGV[2], 'e', ARGV[6])
  else
    id = redis.pcall('XADD', KEYS[1], ARGV[2], 'e', ARGV[6])
  end
  if type(id) == 'table' and id.err then
    -- The second fence: the stream is ahead of its head.
    if string.find(id.err, 'equal or smaller', 1, true) then return refused() end
    return id
  end
  if not id then return refused() end -- NOMKSTREAM: the stream is gone
  redis.call('HSET', KEYS[2], 'incarnation', ARGV[1], 'position', ARGV[2], 'h', ARGV[3],
             'time', ARGV[4], 'format', ARGV[5])
  if ARGV[7] == '1' then redis.call('HSET', KEYS[2], 'owner', ARGV[8]) end
  return {'done'}
end
"""

_APPEND = (
    _WRITE
    + """
-- ARGV: 9 the position and 10 the hash that the entry follows.
local function append()
  if head_is(ARGV[1], ARGV[2], ARGV[3]) then return {'done'} end -- a retry
  if not head_is(ARGV[1], ARGV[9], ARGV[10]) then return refused() end
  return write('NOMKSTREAM')
end
"""
)

APPEND = Script(_APPEND + "return append()\n")

RESIGN = Script(
    _APPEND
    + """
-- KEYS: 3 leader. ARGV: 11 what the leader's lease begins with.
local outcome = append()
if outcome[1] == 'done' then
  local held = redis.call('GET', KEYS[3])
  if held and string.sub(held, 1, #ARGV[11]) == ARGV[11] then redis.call('DEL', KEYS[3]) end
end
return outcome
"""
)

CREATE = Script(
    _WRITE
    + """
-- ARGV: 9 "1" to replace the log whose head is 10 incarnation, 11 position, 12 h.
if head_is(ARGV[1], ARGV[2], ARGV[3]) then return {'done'} end -- a retry
if ARGV[9] == '1' then
  if not head_is(ARGV[10], ARGV[11], ARGV[12]) then return refused() end
elseif redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then
  return refused()
end
local outcome = write()
if outcome[1] == 'done' and ARGV[9] == '1' then
  -- Not DEL before XADD: out of memory, the first would pass and the second would not.
  redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
end
return outcome
"""
)

REPAIR = Script("""
-- KEYS: 1 log, 2 head. ARGV: 1 to 6 and 8 as in an append; 6 is "" where no entry is known.
local entries = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local stream = redis.call('EXISTS', KEYS[1]) > 0
if redis.call('EXISTS', KEYS[2]) > 0 then
  if stream then return 0 end
  return redis.call('DEL', KEYS[2])
end
if not stream then return 0 end
if not entries[1] then return redis.call('DEL', KEYS[1]) end
if entries[1][1] ~= ARGV[2] or entries[1][2][2] ~= ARGV[6] then return 0 end
redis.call('HSET', KEYS[2], 'incarnation', ARGV[1], 'position', ARGV[2], 'h', ARGV[3],
           'time', ARGV[4], 'format', ARGV[5], 'owner', ARGV[8])
return 1
""")

TRIM = Script("""
-- KEYS: 1 log. ARGV: 1 the first position to keep. The newest entry always stays.
local keep = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', 1)
if not keep[1] then keep = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1) end
if not keep[1] then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', '=', keep[1][1])
""")

ANNOUNCE = Script("""
-- KEYS: 1 snapshots, 2 log, 3 head, then the new chunks, then those of snapshots that go.
-- ARGV: 1 position, 2 incarnation, 3 h, 4 how many new chunks, 5 token,
--       6 the newest announced position that the caller saw, or "", 7 how many of those to keep.
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if (newest[1] and newest[1][1] or '') ~= ARGV[6] then return 'moved' end
local incarnation = redis.call('HGET', KEYS[3], 'incarnation')
if incarnation then
  local entry = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])
  -- An entry's bytes end with its hash.
  if incarnation ~= ARGV[2] or not entry[1]
     or string.sub(entry[1][2][2], -#ARGV[3]) ~= ARGV[3] then
    return 'refused'
  end
end
local chunks = tonumber(ARGV[4])
for i = 4, 3 + chunks do
  if redis.call('EXISTS', KEYS[i]) == 0 then return 'expired' end
end
local id = redis.pcall('XADD', KEYS[1], ARGV[1], 'incarnation', ARGV[2], 'h', ARGV[3],
                       'chunks', ARGV[4], 'token', ARGV[5])
if type(id) == 'table' and id.err then
  if string.find(id.err, 'equal or smaller', 1, true) then return 'refused' end
  return id
end
for i = 4, 3 + chunks do redis.call('PERSIST', KEYS[i]) end
redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', tonumber(ARGV[7]) + 1)
for i = 4 + chunks, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 'done'
""")

_LEASE = """
-- KEYS: 1 leader. ARGV: 1 what the owner's lease begins with, 2 the lease, 3 milliseconds.
local held = redis.call('GET', KEYS[1])
local mine = held and string.sub(held, 1, #ARGV[1]) == ARGV[1]
"""

ACQUIRE = Script(
    _LEASE
    + """
if held and not mine then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
)

RENEW = Script(
    _LEASE
    + """
if not mine then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
)

RELEASE = Script(
    _LEASE
    + """
if mine then redis.call('DEL', KEYS[1]) end
return 1
"""
)

MAY = """
-- ARGV: commands, each as the number of its words and then these. 1 where this user is allowed it.
if not redis.acl_check_cmd then return false end -- before 7.0
local answers, i = {}, 1
while i <= #ARGV do
  local count = tonumber(ARGV[i])
  local known, allowed = pcall(redis.acl_check_cmd, unpack(ARGV, i + 1, i + count))
  answers[#answers + 1] = known and allowed and 1 or 0
  i = i + 1 + count
end
return answers
"""
