"""What must be one step in Redis: scripts, each of which checks everything before it writes anything.

The keys of a space, each a hash (H), a set (S) or a sorted set (Z) under ``<prefix>{<digest of the space>}:``:

    state     H  ``seq`` counts all changes, ``node_bytes`` and ``record_bytes`` are sums
    links     H  digest of a node: references to it (4 bytes), seq (8), parent (24), note
    bodies    H  digest of a node: its body
    loose     S  nodes that nothing refers to: what a sweep removes, and then their parents
    guards    Z  token and digest: a node of an append that goes on, until its second
    sessions  H  key: seq (8), revision (8), tip (24), the last eight writers (96), length of context (4), context, body
    uses      H  key of a context: how many sessions have it
    idle      S  contexts that none has
    kinds     S  kinds of records; and of each kind:
    meta:K    H  key: seq (8), pinned (1), expires (8), length of owner (4), owner, the rest
    body:K    H  key: body
    owned:K   Z  length of owner (4), owner, key: in the order of bytes
    until:K   Z  key: when it expires

References are counted so that no step has to walk the whole store: one child, session or guard counts one.
"""

from __future__ import annotations

__all__ = [
    "APPEND",
    "DROP",
    "FORGET",
    "KIND_KEYS",
    "LENGTHS",
    "PUT",
    "READ",
    "RELEASE",
    "REPLACE",
    "SIZE",
    "SPACE_KEYS",
    "SWEEP",
    "SWEEP_RECORDS",
    "WALK",
]

SPACE_KEYS = ("state", "links", "bodies", "loose", "guards", "sessions", "uses", "idle", "kinds")
KIND_KEYS = ("meta", "body", "owned", "until")

_PRELUDE = """
local state, links, bodies, loose, guards = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local sessions, uses, idle, kinds = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local call, unpack_, pack = redis.call, struct.unpack, struct.pack
local root = string.rep('\\0', 24)
local spaces = {'hash', 'hash', 'hash', 'set', 'zset', 'hash', 'hash', 'set', 'set'}
local kinded = {'hash', 'hash', 'zset', 'zset'}
for i, key in ipairs(KEYS) do
  local want = spaces[i] or kinded[(i - 10) % 4 + 1]
  local found = call('TYPE', key).ok
  if found ~= 'none' and found ~= want then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ', not a ' .. want)
  end
end
local function refer(digest, by)
  local link = call('HGET', links, digest)
  if not link then return end
  local count = unpack_('>I4', link) + by
  if count < 0 then count = 0 end
  call('HSET', links, digest, pack('>I4', count) .. string.sub(link, 5))
  if count == 0 then call('SADD', loose, digest) elseif by > 0 then call('SREM', loose, digest) end
end
local function use(context, by)
  if call('HINCRBY', uses, context, by) > 0 then
    call('SREM', idle, context)
  else
    call('HDEL', uses, context)
    call('SADD', idle, context)
  end
end
local function remove(first, key, meta)
  local length = unpack_('>I4', meta, 18)
  call('HINCRBY', state, 'record_bytes', 0 - call('HSTRLEN', KEYS[first + 1], key))
  call('HDEL', KEYS[first], key)
  call('HDEL', KEYS[first + 1], key)
  if length > 0 then call('ZREM', KEYS[first + 2], string.sub(meta, 18, 21 + length) .. key) end
  call('ZREM', KEYS[first + 3], key)
end
local function set(first, kind, key, meta, body, expires)
  local old, seq = call('HGET', KEYS[first], key), nil
  if old then
    seq = string.sub(old, 1, 8)
    remove(first, key, old)
  else
    seq = pack('>I8', call('HINCRBY', state, 'seq', 1))
  end
  local length = unpack_('>I4', meta, 10)
  call('HINCRBY', state, 'record_bytes', #body)
  call('HSET', KEYS[first], key, seq .. meta)
  call('HSET', KEYS[first + 1], key, body)
  if length > 0 then call('ZADD', KEYS[first + 2], 0, string.sub(meta, 10, 13 + length) .. key) end
  if expires ~= '' then call('ZADD', KEYS[first + 3], expires, key) end
  call('SADD', kinds, kind)
  if kind == 'context' and call('HEXISTS', uses, key) == 0 then call('SADD', idle, key) end
end
-- A server whose memory is full refuses a script whose first write may take more of it.
local function giving_back() call('HDEL', state, '') end
local function owner(meta) return string.sub(meta, 22, 21 + unpack_('>I4', meta, 18)) end
"""

# ARGV: token, revision ('' for no session), key, tip, context, body; how many rows, records, guarded and released digests;
# seconds of a guard; 1 for a slice of an append that goes on, which checks the session and leaves it. Then rows as
# (digest, parent, note, body), records as (place of the first key, kind, key, meta, body, expires), and the digests.
APPEND = f"""{_PRELUDE}
local token, revision, name, tip, context, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local rows, records, guarded, released = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local seconds, staged = tonumber(ARGV[11]), ARGV[12] == '1'
local old, ring, oldtip, oldcontext, born = false, '', nil, nil, nil
if revision ~= '' then
  old = call('HGET', sessions, name)
  local found = 0
  if old then
    found = unpack_('>I8', old, 9)
    ring = string.sub(old, 41, 136)
    for i = 1, 85, 12 do
      if string.sub(ring, i, i + 7) == token then
        -- The answer to this save was lost. Sealed anew it has other bytes; if others have saved since, theirs stay.
        if i == 1 and not staged then
          call('HSET', sessions, name, string.sub(old, 1, 140 + unpack_('>I4', old, 137)) .. body)
        end
        return {{'done', (unpack_('>I4', ring, i + 8))}}
      end
    end
  end
  if tonumber(revision) ~= found + 1 then return {{'stale', old}} end
end
local new, fresh, bytes, at = {{}}, 0, 0, 13
for i = 1, rows do
  local digest, parent = ARGV[at], ARGV[at + 1]
  if parent ~= root and not new[parent] and call('HEXISTS', links, parent) == 0 then return {{'missing', parent}} end
  if not new[digest] and call('HEXISTS', links, digest) == 0 then
    new[digest] = true
    fresh, bytes = fresh + 1, bytes + #ARGV[at + 3]
  end
  at = at + 4
end
if revision ~= '' and not staged and tip ~= root and not new[tip] and call('HEXISTS', links, tip) == 0 then
  return {{'missing', tip}}
end
local seq = call('HINCRBY', state, 'seq', fresh + 1) - fresh
call('HINCRBY', state, 'node_bytes', bytes)
at = 13
for i = 1, rows do
  local digest, parent = ARGV[at], ARGV[at + 1]
  if new[digest] then
    new[digest] = nil
    call('HSET', links, digest, pack('>I4I8', 0, seq) .. parent .. ARGV[at + 2])
    call('HSET', bodies, digest, ARGV[at + 3])
    call('SADD', loose, digest)
    seq = seq + 1
    if parent ~= root then refer(parent, 1) end
  end
  at = at + 4
end
for i = 1, records do
  if call('HEXISTS', KEYS[tonumber(ARGV[at])], ARGV[at + 2]) == 0 then
    set(tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
  end
  at = at + 6
end
local till = tonumber(call('TIME')[1]) + seconds
for i = 1, guarded do
  if call('ZADD', guards, till, token .. ARGV[at]) == 1 then refer(ARGV[at], 1) end
  at = at + 1
end
if revision ~= '' and not staged then
  if old then
    oldtip = string.sub(old, 17, 40)
    local length = unpack_('>I4', old, 137)
    oldcontext = string.sub(old, 141, 140 + length)
    born = string.sub(old, 1, 8)
  else
    born = pack('>I8', seq)
    ring = string.rep('\\0', 96)
  end
  ring = token .. pack('>I4', fresh) .. string.sub(ring, 1, 84)
  call('HSET', sessions, name, born .. pack('>I8', tonumber(revision)) .. tip .. ring
    .. pack('>I4', #context) .. context .. body)
  if oldtip ~= tip then
    if tip ~= root then refer(tip, 1) end
    if oldtip and oldtip ~= root then refer(oldtip, -1) end
  end
  if oldcontext ~= context then
    use(context, 1)
    if oldcontext then use(oldcontext, -1) end
  end
end
for i = 1, released do
  if call('ZREM', guards, token .. ARGV[at]) == 1 then refer(ARGV[at], -1) end
  at = at + 1
end
return {{'done', fresh}}
"""

# ARGV: token, digests. What an append that was given up held.
RELEASE = f"""{_PRELUDE}
giving_back()
call('HINCRBY', state, 'seq', 1)
for i = 2, #ARGV do
  if call('ZREM', guards, ARGV[1] .. ARGV[i]) == 1 then refer(ARGV[i], -1) end
end
return 1
"""

# ARGV: kind, key, meta, body, expires, and now ('' to set it whatever stands there). What stands there is returned.
PUT = f"""{_PRELUDE}
local found = call('HGET', KEYS[10], ARGV[2])
if ARGV[6] ~= '' and found then
  local free = string.byte(found, 9) == 0 and call('ZSCORE', KEYS[13], ARGV[2])
    and unpack_('>d', found, 10) <= unpack_('>d', ARGV[6])
  if owner(found) ~= string.sub(ARGV[3], 14, 13 + unpack_('>I4', ARGV[3], 10)) and not free then
    return {{found, call('HGET', KEYS[11], ARGV[2])}}
  end
end
call('HINCRBY', state, 'seq', 1)
set(10, ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
return {{}}
"""

# ARGV: key, whether an owner is given, owner, kind.
DROP = f"""{_PRELUDE}
local found = call('HGET', KEYS[10], ARGV[1])
if not found or (ARGV[2] == '1' and owner(found) ~= ARGV[3]) then return 0 end
giving_back()
call('HINCRBY', state, 'seq', 1)
remove(10, ARGV[1], found)
if ARGV[4] == 'context' then call('SREM', idle, ARGV[1]) end
return 1
"""

# ARGV: key, and the bounds of what it owns. The keys of the kind are those of originals.
FORGET = f"""{_PRELUDE}
local found = call('HGET', sessions, ARGV[1])
local owned = call('ZRANGEBYLEX', KEYS[12], ARGV[2], ARGV[3])
giving_back()
call('HINCRBY', state, 'seq', 1)
for _, member in ipairs(owned) do
  local key = string.sub(member, #ARGV[2])
  local meta = call('HGET', KEYS[10], key)
  if meta then remove(10, key, meta) end
end
if not found then return 0 end
local tip = string.sub(found, 17, 40)
call('HDEL', sessions, ARGV[1])
if tip ~= root then refer(tip, -1) end
use(string.sub(found, 141, 140 + unpack_('>I4', found, 137)), -1)
return 1
"""

# ARGV: how many at most. Guards whose time is over are let go first. Returns how many went, and whether there are more.
SWEEP = f"""{_PRELUDE}
local most, now = tonumber(ARGV[1]), call('TIME')[1]
giving_back()
call('HINCRBY', state, 'seq', 1)
for _, member in ipairs(call('ZRANGEBYSCORE', guards, '-inf', now, 'LIMIT', 0, most)) do
  call('ZREM', guards, member)
  refer(string.sub(member, 9), -1)
end
local gone, pending = 0, call('SRANDMEMBER', loose, most)
while #pending > 0 and gone < most do
  local digest = table.remove(pending)
  local link = call('HGET', links, digest)
  call('SREM', loose, digest)
  if link and unpack_('>I4', link) == 0 then
    local parent = string.sub(link, 13, 36)
    call('HINCRBY', state, 'node_bytes', 0 - call('HSTRLEN', bodies, digest))
    call('HDEL', links, digest)
    call('HDEL', bodies, digest)
    gone = gone + 1
    if parent ~= root then
      refer(parent, -1)
      if call('SISMEMBER', loose, parent) == 1 then pending[#pending + 1] = parent end
    end
  end
end
return {{gone, call('SCARD', loose)}}
"""

# ARGV: kind, now, how many at most. Returns how many went, and whether there may be more.
SWEEP_RECORDS = f"""{_PRELUDE}
local most, gone = tonumber(ARGV[3]), 0
local dead = call('ZRANGEBYSCORE', KEYS[13], '-inf', ARGV[2], 'LIMIT', 0, most)
local more = #dead == most
if ARGV[1] == 'context' then
  local left = call('SRANDMEMBER', idle, most)
  more = more or #left == most
  for _, key in ipairs(left) do
    call('SREM', idle, key)
    if call('HEXISTS', uses, key) == 0 then dead[#dead + 1] = key end
  end
end
giving_back()
call('HINCRBY', state, 'seq', 1)
for _, key in ipairs(dead) do
  local meta = call('HGET', KEYS[10], key)
  call('ZREM', KEYS[13], key)
  if meta then
    remove(10, key, meta)
    gone = gone + 1
  end
end
return {{gone, more and 1 or 0}}
"""

# ARGV: for each row where it stands ('node', 'session', or the place of the key with the bodies), key, old and new body.
REPLACE = f"""{_PRELUDE}
local done = 0
call('HINCRBY', state, 'seq', 1)
for at = 1, #ARGV, 4 do
  local key, old, new = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if ARGV[at] == 'session' then
    local found = call('HGET', sessions, key)
    local length = found and 140 + unpack_('>I4', found, 137)
    if found and string.sub(found, length + 1) == old then
      call('HSET', sessions, key, string.sub(found, 1, length) .. new)
      done = done + 1
    end
  else
    local place, sum = KEYS[tonumber(ARGV[at])] or bodies, ARGV[at] == 'node' and 'node_bytes' or 'record_bytes'
    if call('HGET', place, key) == old then
      call('HSET', place, key, new)
      call('HINCRBY', state, sum, #new - #old)
      done = done + 1
    end
  end
end
return done
"""

# Reading is done in scripts, too: a server whose memory is full refuses even that in transactions.

# KEYS: two hashes. ARGV: fields. Returns the values of both.
READ = """
local heads, bodies = {}, {}
for i, field in ipairs(ARGV) do
  heads[i], bodies[i] = redis.call('HGET', KEYS[1], field), redis.call('HGET', KEYS[2], field)
end
return {heads, bodies}
"""

# KEYS: a hash. ARGV: fields. Returns how long their values are.
LENGTHS = """
local lengths = {}
for i, field in ipairs(ARGV) do lengths[i] = redis.call('HSTRLEN', KEYS[1], field) end
return lengths
"""

# KEYS: those of the space and of its kinds.
SIZE = """
local call, records, memory = redis.call, 0, 0
for _, key in ipairs(KEYS) do memory = memory + (call('MEMORY', 'USAGE', key, 'SAMPLES', 100) or 0) end
for i = 10, #KEYS, 4 do records = records + call('HLEN', KEYS[i]) end
return {call('HLEN', KEYS[2]), call('HGET', KEYS[1], 'node_bytes') or 0, call('HLEN', KEYS[6]), records,
  call('HGET', KEYS[1], 'record_bytes') or 0, memory}
"""

# KEYS: sessions, links, bodies. ARGV: the session ('' to go on), where to go on, behind which seq, rows and bytes at most.
# Returns the session, and a digest, link and body for each node, from the tip on. Parents have a smaller seq than their
# children, so that no damage can make a walk go round in circles.
WALK = """
local at, behind, most, room = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local root, out, bytes, session = string.rep('\\0', 24), {}, 0, ''
if ARGV[1] ~= '' then
  session = redis.call('HGET', KEYS[1], string.sub(ARGV[1], 2))
  if not session then return {} end
  at = string.sub(session, 17, 40)
end
while at ~= root and #out < 3 * most and bytes < room do
  local link = redis.call('HGET', KEYS[2], at)
  if not link then break end
  local _, seq = struct.unpack('>I4I8', link)
  if behind >= 0 and seq >= behind then break end
  local body = redis.call('HGET', KEYS[3], at) or ''
  out[#out + 1], out[#out + 2], out[#out + 3] = at, link, body
  at, behind, bytes = string.sub(link, 13, 36), seq, bytes + #body
end
return {session, out}
"""
