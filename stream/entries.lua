-- Merging of cells that are sorted entries of a key and a payload (features/cells.py). script.py puts this in front of
-- merge.lua where a plan has such cells, with a description of each: {key, payload, join, keep, most}.
--
-- key, payload: their bytes; -1: a length (u4) stands in front. Entries are sorted by the bytes of their keys.

local entries = {}

-- Lua's own order of strings follows the locale.
local function precedes(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

function entries.none(a)
  return a
end

function entries.add(a, b)
  return struct.pack('<i8', struct.unpack('<i8', a) + struct.unpack('<i8', b))
end

function entries.greater(a, b)
  return precedes(a, b) and b or a
end

local function split(text, key_bytes, payload_bytes)
  local keys, payloads, n, at = {}, {}, 0, 1
  local function part(bytes)
    if bytes < 0 then
      bytes = struct.unpack('<I4', text, at)
      at = at + 4
    end
    at = at + bytes
    return string.sub(text, at - bytes, at - 1)
  end
  while at <= #text do
    n = n + 1
    keys[n] = part(key_bytes)
    payloads[n] = part(payload_bytes)
  end
  return keys, payloads, n
end

local function joined(keys, payloads, key_bytes, payload_bytes, first, last)
  local parts = {}
  local function put(text, bytes)
    if bytes < 0 then
      parts[#parts + 1] = struct.pack('<I4', #text)
    end
    parts[#parts + 1] = text
  end
  for i = first, last do
    if keys[i] then
      put(keys[i], key_bytes)
      put(payloads[i], payload_bytes)
    end
  end
  return table.concat(parts)
end

-- Entries of one size: the stored ones are copied in stretches between the places where the delta's belong.
local function merged_fixed(a, b, cell)
  local key_bytes, size = cell.key, cell.key + cell.payload
  local n, from, pieces = #a / size, 0, {}
  for at = 1, #b, size do
    local key, low, high = string.sub(b, at, at + key_bytes - 1), from, n
    while low < high do
      local middle = math.floor((low + high) / 2)
      if precedes(string.sub(a, middle * size + 1, middle * size + key_bytes), key) then
        low = middle + 1
      else
        high = middle
      end
    end
    if low > from then
      pieces[#pieces + 1] = string.sub(a, from * size + 1, low * size)
    end
    if low < n and string.sub(a, low * size + 1, low * size + key_bytes) == key then
      local old, new = string.sub(a, low * size + key_bytes + 1, (low + 1) * size), string.sub(b, at + key_bytes, at + size - 1)
      pieces[#pieces + 1] = key .. cell.join(old, new)
      from = low + 1
    else
      pieces[#pieces + 1] = string.sub(b, at, at + size - 1)
      from = low
    end
  end
  pieces[#pieces + 1] = string.sub(a, from * size + 1)
  return table.concat(pieces)
end

local function merged_variable(a, b, cell)
  local keys_a, payloads_a, n_a = split(a, cell.key, cell.payload)
  local keys_b, payloads_b, n_b = split(b, cell.key, cell.payload)
  local keys, payloads, n, i, j = {}, {}, 0, 1, 1
  while i <= n_a or j <= n_b do
    n = n + 1
    if j > n_b or (i <= n_a and precedes(keys_a[i], keys_b[j])) then
      keys[n], payloads[n], i = keys_a[i], payloads_a[i], i + 1
    elseif i > n_a or keys_a[i] ~= keys_b[j] then
      keys[n], payloads[n], j = keys_b[j], payloads_b[j], j + 1
    else
      keys[n], payloads[n] = keys_a[i], cell.join(payloads_a[i], payloads_b[j])
      i, j = i + 1, j + 1
    end
  end
  return keys, payloads, n
end

local KEEP = {}

function KEEP.all(keys, payloads, n)
  return 1, n
end

function KEEP.first(keys, payloads, n, most)
  return 1, math.min(n, most)
end

function KEEP.last(keys, payloads, n, most)
  return math.max(1, n - most + 1), n
end

-- Those with the greatest payloads.
function KEEP.newest(keys, payloads, n, most)
  local order = {}
  for i = 1, n do
    order[i] = i
  end
  table.sort(order, function(x, y) return precedes(payloads[y], payloads[x]) end)
  for i = most + 1, n do
    keys[order[i]] = false
  end
  return 1, n
end

-- Buckets of one sign further than 2,047 below the largest magnitude fall into the lowest that is kept.
function KEEP.collapse(keys, payloads, n)
  local ZERO, RANGE = 2147483648, 2047
  local least, greatest = struct.unpack('>I4', keys[1]) - ZERO, struct.unpack('>I4', keys[n]) - ZERO
  local target
  local function add(i, bucket)
    if target and struct.unpack('>I4', keys[target]) - ZERO == bucket then
      payloads[target] = entries.add(payloads[target], payloads[i])
      keys[i] = false
    else
      keys[i], target = struct.pack('>I4', bucket + ZERO), i
    end
  end
  for i = 1, n do
    local bucket = struct.unpack('>I4', keys[i]) - ZERO
    if bucket < 0 and bucket >= least + RANGE then
      add(i, least + RANGE)
    elseif bucket > 0 and bucket <= greatest - RANGE then
      add(i, greatest - RANGE)
    end
  end
  return 1, n
end

-- The entries `a` merged with those of a delta, `b`.
local function merge_entries(a, b, cell)
  if #b == 0 then
    return a
  elseif #a == 0 then
    return b
  end
  local keys, payloads, n
  if cell.key < 0 or cell.payload < 0 then
    keys, payloads, n = merged_variable(a, b, cell)
  else
    local text, size = merged_fixed(a, b, cell), cell.key + cell.payload
    n = #text / size
    if cell.most == 0 or n <= cell.most then
      return text
    elseif cell.keep == 'first' then
      return string.sub(text, 1, cell.most * size)
    elseif cell.keep == 'last' then
      return string.sub(text, #text - cell.most * size + 1)
    end
    keys, payloads, n = split(text, cell.key, cell.payload)
  end
  local first, last = 1, n
  if cell.most > 0 and n > cell.most then
    first, last = KEEP[cell.keep](keys, payloads, n, cell.most)
  end
  return joined(keys, payloads, cell.key, cell.payload, first, last)
end
