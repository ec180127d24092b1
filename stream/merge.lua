-- Merges the deltas of one shard into its rows and moves the shard's checkpoint, or changes nothing. DESIGN §5.
--
-- script.py puts the plan's constants and its `merge_record` and `merge_value` in front of this text.
--
-- KEYS  checkpoint, then for each row: row (, hash)              (the hash where the plan has variable-size cells)
-- ARGV  1 the generation to start with where there is no checkpoint
--       2 expectations: source u4 | partition i4 | topic id 16 | offset it must have i8 (−1: no entry) | offset i8 | newest i8
--       3 '1' where rows expire
--       then for each row: newest i8, records (, the records' hash values)
-- Answers {1, tiles too old to be read} or {0, the stored checkpoint}.
--
-- Redis keeps what a script wrote before it failed. So everything is read, checked and computed first, and written last.

local GENERATION, HEADER, ENTRY, EXPECTATION = 8, 24, 40, 48
local NO_ENTRY, EMPTY = string.rep('\255', 8), -1
local RESOLUTION_SPAN, TILE_BIAS = 2 ^ 47, 2 ^ 46
local RESOLUTIONS = #HOPS
local PREFIX = HEADER + RESOLUTIONS * RECORD
local EMPTY_HEAD = struct.pack('<i8', EMPTY) .. string.rep('\0', RECORD - 8)
local call, pack, unpack_at, sub, floor, max = redis.call, struct.pack, struct.unpack, string.sub, math.floor, math.max
local STEP = VARIABLE and 2 or 1

-- The checkpoint: compared byte for byte, because offsets need not be exact in Lua's numbers.

local function compared(stored, expectations)
  local entries, index, added = {}, {}, false
  for at = GENERATION + 1, #stored, ENTRY do
    entries[#entries + 1] = sub(stored, at, at + ENTRY - 1)
    index[sub(stored, at, at + 7)] = #entries
  end
  for at = 1, #expectations, EXPECTATION do
    local slot, expected = index[sub(expectations, at, at + 7)], sub(expectations, at + 24, at + 31)
    if slot then
      local entry = entries[slot]
      if sub(entry, 9, 24) ~= sub(expectations, at + 8, at + 23) or sub(entry, 25, 32) ~= expected then
        return nil
      end
    elseif expected == NO_ENTRY then
      slot, added = #entries + 1, true
    else
      return nil
    end
    entries[slot] = sub(expectations, at, at + 23) .. sub(expectations, at + 32, at + EXPECTATION - 1)
  end
  if added then
    table.sort(entries, function(a, b)
      local source_a, partition_a = unpack_at('<I4i4', a)
      local source_b, partition_b = unpack_at('<I4i4', b)
      return source_a < source_b or (source_a == source_b and partition_a < partition_b)
    end)
  end
  return table.concat(entries)
end

if #ARGV ~= 3 + (#KEYS - 1) then
  return redis.error_reply('HEADRACE ' .. #KEYS - 1 .. ' keys of rows; got ' .. #ARGV - 3 .. ' arguments for them')
end
if #ARGV[1] ~= GENERATION or #ARGV[2] % EXPECTATION ~= 0 then
  return redis.error_reply('HEADRACE a generation has 8 bytes and an expectation 48; got ' .. #ARGV[1] .. ' and ' .. #ARGV[2])
end
local stored = call('GET', KEYS[1])
if stored and (#stored < GENERATION or (#stored - GENERATION) % ENTRY ~= 0) then
  return redis.error_reply('HEADRACE a checkpoint of ' .. #stored .. ' bytes is damaged: ' .. KEYS[1])
end
local entries = compared(stored or '', ARGV[2])
if not entries then
  return {0, stored or ''}
end
local generation = stored and sub(stored, 1, GENERATION) or ARGV[1]
local expires = RETENTION_US and ARGV[3] == '1'

-- The rows: read and merged in memory.

local writes, too_late = {}, 0

-- True where no window that is still to be read covers the tile.
local function expired(key, newest)
  local resolution = floor(key / RESOLUTION_SPAN)
  local span = SPANS[resolution + 1]
  if span == 0 then
    return false
  end
  local tile = key - resolution * RESOLUTION_SPAN - TILE_BIAS
  return (tile + 1) * HOPS[resolution + 1] + span < newest
end

-- The key of the tile that holds all time before the others, where the resolution keeps it; else nil.
local function past_of(key)
  local resolution = floor(key / RESOLUTION_SPAN)
  return KEEPS_PAST[resolution + 1] and resolution * RESOLUTION_SPAN or nil
end

-- What lives of the slots and of the records that no longer fit, duplicates merged. Fields of dropped tiles go to
-- `dropped`: field -> the field of the past that its value goes into, or false.
local function compacted(slots, appended, newest, dropped)
  local records, index = {}, {}
  local function keep(text, at)
    local key = unpack_at('<i8', text, at)
    if expired(key, newest) then
      local past = past_of(key)
      if key ~= past then
        dropped[sub(text, at, at + 7)] = past and pack('<i8', past) or false
        if not past then
          return
        end
        text, at, key = pack('<i8', past) .. sub(text, at + 8, at + RECORD - 1), 1, past
      end
    end
    local slot = index[key]
    if slot then
      records[slot] = merge_record(records[slot], 1, text, at)
    else
      records[#records + 1] = sub(text, at, at + RECORD - 1)
      index[key] = #records
    end
  end
  for at = 1, #slots, RECORD do
    keep(slots, at)
  end
  for _, record in ipairs(appended) do
    keep(record, 1)
  end
  return records
end

-- The field's new value: what stands in the hash, or was just made for it, merged with `value`.
local function merge_field(write, field, value)
  local old = write.fields[field] or (not write.fresh and call('HGET', write.hash, field))
  write.fields[field] = merge_value(old or nil, value)
end

-- The start of the next value.
local function after_value(values, at)
  for _ = 1, VARIABLE do
    at = at + 4 + unpack_at('<I4', values, at)
  end
  return at
end

local function prepare(write, prefix, delta, values)
  local fresh = sub(prefix, 1, GENERATION) ~= generation
  local newest, old_newest, used, slots = unpack_at('<i8', delta), -math.huge, 0, 0
  local heads, keys = {}, {}
  if fresh then
    for r = 1, RESOLUTIONS do
      heads[r], keys[r] = EMPTY_HEAD, EMPTY
    end
  elseif #prefix < PREFIX then
    return 'a row of ' .. #prefix .. ' bytes is damaged: ' .. write.row
  else
    old_newest, used, slots = unpack_at('<i8I4I4', prefix, 9)
    for r = 1, RESOLUTIONS do
      local at = HEADER + (r - 1) * RECORD + 1
      heads[r], keys[r] = sub(prefix, at, at + RECORD - 1), unpack_at('<i8', prefix, at)
    end
  end
  newest = max(newest, old_newest)

  local appended, dropped, changed, value_at = {}, {}, newest > old_newest, 1
  write.fields, write.fresh = {}, fresh
  for at = 9, #delta, RECORD do
    local key = unpack_at('<i8', delta, at)
    local r = floor(key / RESOLUTION_SPAN) + 1
    local head = keys[r]
    if not head then
      return 'a delta names resolution ' .. r - 1 .. ' of ' .. RESOLUTIONS .. ': ' .. write.row
    end
    local is_expired, value = expired(key, newest), nil
    if VARIABLE then
      local stop = after_value(values, value_at)
      value, value_at = sub(values, value_at, stop - 1), stop
    end
    if is_expired and not KEEPS_PAST[r] then
      too_late = too_late + 1
    else
      changed = true
      local record = sub(delta, at, at + RECORD - 1)
      if is_expired then
        key = past_of(key)
        record = pack('<i8', key) .. sub(record, 9)
      end
      if key == head then
        heads[r] = merge_record(heads[r], 1, record, 1)
      elseif key < head then
        appended[#appended + 1] = record
      else
        if head ~= EMPTY then
          appended[#appended + 1] = heads[r]
        end
        heads[r], keys[r] = record, key
        write.advanced = true
      end
      if VARIABLE then
        merge_field(write, sub(record, 1, 8), value)
      end
    end
  end
  if VARIABLE and value_at ~= #values + 1 then
    return 'the hash values of a delta end at byte ' .. value_at - 1 .. ' of ' .. #values .. ': ' .. write.row
  end
  if not changed then
    return nil
  end

  if fresh or used + #appended > slots then
    local old = used > 0 and call('GETRANGE', write.row, PREFIX, PREFIX + used * RECORD - 1) or ''
    if #old ~= used * RECORD then
      return 'a row with ' .. used .. ' slots is damaged: ' .. write.row
    end
    local records = compacted(old, appended, newest, dropped)
    if VARIABLE then
      for field, past in pairs(dropped) do
        local value = past and (write.fields[field] or call('HGET', write.hash, field))
        if value then
          merge_field(write, past, value)
        end
      end
    end
    used = #records
    -- A quarter to spare: a rewrite costs as much as five appends for each slot that it frees.
    slots = used == 0 and 0 or used + max(SLOTS_SPARE_MIN, floor(used / 4))
    write.whole = table.concat(heads) .. table.concat(records) .. string.rep('\0', (slots - used) * RECORD)
  else
    write.slot_at = PREFIX + used * RECORD
    write.appended = #appended > 0 and table.concat(appended)
    write.heads = table.concat(heads)
    used = used + #appended
  end
  write.header = pack('<c8i8I4I4', generation, newest, used, slots)
  write.newest, write.dropped = newest, dropped
  writes[#writes + 1] = write
  return nil
end

-- Most rows get one record a resolution, each of the tile that is the head already: then the newest event lies in these
-- tiles, so none is expired, and nothing but the heads changes. Answers the row's new beginning; nil: it is another case.
local function merged_heads(prefix, delta)
  if #delta ~= 8 + RESOLUTIONS * RECORD or #prefix ~= PREFIX or sub(prefix, 1, GENERATION) ~= generation then
    return nil
  end
  local heads = ''
  for at = 0, (RESOLUTIONS - 1) * RECORD, RECORD do
    local merged = merge_head(prefix, HEADER + at + 1, delta, at + 9)
    if not merged then
      return nil
    end
    heads = heads .. merged
  end
  local newest, used, slots = unpack_at('<i8I4I4', prefix, 9)
  return pack('<c8i8I4I4', generation, max(newest, (unpack_at('<i8', delta))), used, slots) .. heads
end

local SIMPLE = merge_head and not VARIABLE
local simple_rows, simple_beginnings, simple = {}, {}, 0

for k = 2, #KEYS, STEP do
  local delta = ARGV[k + 2]
  if #delta <= 8 or (#delta - 8) % RECORD ~= 0 then
    return redis.error_reply('HEADRACE a delta is 8 + n * ' .. RECORD .. ' bytes; got ' .. #delta .. ': ' .. KEYS[k])
  end
  local prefix = call('GETRANGE', KEYS[k], 0, PREFIX - 1)
  local beginning = SIMPLE and merged_heads(prefix, delta)
  if beginning then
    simple = simple + 1
    simple_rows[simple], simple_beginnings[simple] = KEYS[k], beginning
  else
    local damage = prepare({row = KEYS[k], hash = VARIABLE and KEYS[k + 1]}, prefix, delta, ARGV[k + 3])
    if damage then
      return redis.error_reply('HEADRACE ' .. damage)
    end
  end
end

-- From here on nothing can fail.

local function write_hash(write)
  if write.fresh then
    call('DEL', write.hash)
  end
  for field, value in pairs(write.fields) do
    call('HSET', write.hash, field, value)
  end
  for field in pairs(write.dropped) do
    call('HDEL', write.hash, field)
  end
end

for n = 1, simple do
  call('SETRANGE', simple_rows[n], 0, simple_beginnings[n])
end
for _, write in ipairs(writes) do
  if write.whole then
    if expires and not write.fresh then
      call('SET', write.row, write.header .. write.whole, 'KEEPTTL')
    else
      call('SET', write.row, write.header .. write.whole)
    end
  else
    if write.appended then
      call('SETRANGE', write.row, write.slot_at, write.appended)
    end
    call('SETRANGE', write.row, 0, write.header .. write.heads)
  end
  if VARIABLE then
    write_hash(write)
  end
  if expires and write.advanced then
    -- Rows of events long gone expire at once: no window read by the wall clock covers them.
    local at_ms = string.format('%.0f', max(1, math.ceil((write.newest + RETENTION_US) / 1000)))
    call('PEXPIREAT', write.row, at_ms)
    if VARIABLE then
      call('PEXPIREAT', write.hash, at_ms)
    end
  end
end
call('SET', KEYS[1], generation .. entries)
return {1, too_late}
