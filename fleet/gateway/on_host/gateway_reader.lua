-- Reads the words of a JSON text in one pass, in the parts that it comes in, and says how much of it
-- is too much. A reader stands at the byte `at` of its part `text`, before which there were `base`.
local byte, char, concat, find = string.byte, string.char, table.concat, string.find
local gsub, sub = string.gsub, string.sub
local max, min = math.max, math.min

local MAX_DEPTH = 64
local MAX_VALUES = 500000 -- of keys and values
local MAX_PLAIN = 400
local MAX_QUOTES = 2000000 -- within texts
local MAX_BACKSLASHES = 10000 -- in a row
local PAUSE = 8000 -- steps between pauses, about two milliseconds
local CHUNK = 1000 -- steps that a part counts for
local HEAD, TAIL = 1024, 256 -- bytes that tell a long text from others

local QUOTE, BACKSLASH, COMMA, COLON = byte('"'), byte("\\"), byte(","), byte(":")
local OPEN_LIST, CLOSE_LIST, OPEN, CLOSE = byte("["), byte("]"), byte("{"), byte("}")
-- What Go takes for one letter of ASCII, and is none.
local FOLDED = { [0x17f] = "s", [0x212a] = "k" }

local M = {}

-- A reader of the text whose parts `next` gives, until nil. `pause` is called every few milliseconds.
function M.new(next, pause)
  return {
    next = next, pause = pause, text = "", at = 1, base = 0,
    depth = 0, values = 0, quotes = 0, steps = 0, path = {},
  }
end

-- `code` is one of "not_json", "unknown_field", "withheld", "too_complex".
local function refuse(reader, code, reason)
  error({ code = code, field = concat(reader.path, "."), reason = reason }, 0)
end

local function spend(reader, steps)
  reader.steps = reader.steps + steps
  if reader.steps > PAUSE then
    reader.steps = 0
    reader.pause()
  end
end

local function count(reader)
  reader.values = reader.values + 1
  if reader.values > MAX_VALUES then
    refuse(reader, "too_complex", "has more than " .. MAX_VALUES .. " values")
  end
  spend(reader, 1)
end

local function more(reader)
  local text = not reader.ended and reader.next()
  if not text then
    reader.ended = true -- it is not asked again
    return false
  end
  reader.base = reader.base + #reader.text
  reader.text, reader.at = text, 1
  spend(reader, CHUNK)
  return true
end

-- The next byte that is no space; nil at the end of the text.
local function peek(reader)
  while true do
    local at = find(reader.text, "[^ \t\r\n]", reader.at)
    if at then
      reader.at = at
      return byte(reader.text, at)
    end
    if not more(reader) then
      reader.at = #reader.text + 1
      return nil
    end
  end
end

local function expect(reader, wanted, name)
  if peek(reader) ~= wanted then
    refuse(reader, "not_json", "is not JSON: " .. name .. " is missing")
  end
  reader.at = reader.at + 1
end

-- How many backslashes stand right before `at`; `carried` is how many ended the part before.
local function backslashes(reader, from, at, carried)
  local text, before = reader.text, at - 1
  while before >= from and byte(text, before) == BACKSLASH do
    before = before - 1
    if at - before > MAX_BACKSLASHES then
      refuse(reader, "too_complex", "has more than " .. MAX_BACKSLASHES .. " backslashes in a row")
    end
  end
  return at - 1 - before + (before < from and carried or 0)
end

-- Where the string ends that the reader is in, if that is plain to see: nearly always.
local function plain_end(reader)
  local quote = find(reader.text, '"', reader.at, true)
  return quote and byte(reader.text, quote - 1) ~= BACKSLASH and quote or nil
end

-- Goes to the end of the string that the reader is in; `take(text, from, stop)` gets its parts.
local function scan(reader, take)
  local from, carried = reader.at, 0
  local search = from
  while true do
    local text = reader.text
    local quote = find(text, '"', search, true)
    local stop = (quote or #text + 1) - 1
    local taken = backslashes(reader, search, stop + 1, carried)
    if not quote or taken % 2 == 0 then
      take(text, from, stop)
    end
    if not quote then
      if not more(reader) then
        refuse(reader, "not_json", "ends in the middle of a text")
      end
      from, search, carried = 1, 1, taken
    elseif taken % 2 == 0 then
      reader.at = quote + 1
      return
    else
      search, carried = quote + 1, 0
      reader.quotes = reader.quotes + 1
      if reader.quotes > MAX_QUOTES then
        refuse(reader, "too_complex", "has more than " .. MAX_QUOTES .. " quotes within its texts")
      end
      spend(reader, 1)
    end
  end
end

local function nothing() end

-- Reads a string to its end. The text between its quotes, as it is written; nil when it is longer
-- than `limit` bytes.
local function read_string(reader, limit)
  expect(reader, QUOTE, "a quote")
  local from, quote = reader.at, plain_end(reader)
  if quote then
    reader.at = quote + 1
    return quote - from <= limit and sub(reader.text, from, quote - 1) or nil
  end
  local length, parts = 0, {}
  scan(reader, function(text, first, last)
    length = length + last - first + 1
    if length <= limit then
      parts[#parts + 1] = sub(text, first, last)
    end
  end)
  return length <= limit and concat(parts) or nil
end

-- Reads a string to its end: its first bytes, its length, and its last bytes.
local function read_gist(reader)
  expect(reader, QUOTE, "a quote")
  local length, head, tail = 0, "", ""
  scan(reader, function(text, from, stop)
    length = length + stop - from + 1
    if #head < HEAD then
      head = head .. sub(text, from, min(stop, from + HEAD - #head - 1))
    end
    tail = sub(tail .. sub(text, max(from, stop - TAIL + 1), stop), -TAIL)
  end)
  return head, length, tail
end

-- A number or a word.
local function skip_plain(reader)
  local length = 0
  repeat
    local _, stop = find(reader.text, "^[%w+.-]+", reader.at)
    if stop then
      length = length + stop + 1 - reader.at
      reader.at = stop + 1
    end
  until reader.at <= #reader.text or not more(reader)
  if length == 0 or length > MAX_PLAIN then
    refuse(reader, "not_json", "is not JSON, or a number of more than " .. MAX_PLAIN .. " digits")
  end
end

local function deeper(reader, depth)
  count(reader)
  reader.at = reader.at + 1
  if depth >= MAX_DEPTH then
    refuse(reader, "too_complex", "is nested more than " .. MAX_DEPTH .. " deep")
  end
  return depth + 1
end

-- A string, of which nothing is wanted.
local function pass_string(reader)
  reader.at = reader.at + 1
  local quote = plain_end(reader)
  if quote then
    reader.at = quote + 1
  else
    scan(reader, nothing)
  end
end

-- A whole value, whatever it is.
local function skip(reader)
  local depth = reader.depth
  repeat
    local first = peek(reader)
    if first == QUOTE then
      count(reader)
      pass_string(reader)
    elseif first == OPEN or first == OPEN_LIST then
      depth = deeper(reader, depth)
    elseif first == CLOSE or first == CLOSE_LIST then
      depth = depth - 1
      reader.at = reader.at + 1
    elseif depth > reader.depth and (first == COMMA or first == COLON) then
      spend(reader, 1)
      reader.at = reader.at + 1
    elseif first then
      count(reader)
      skip_plain(reader)
    else
      refuse(reader, "not_json", "ends too early")
    end
  until depth <= reader.depth
  if depth < reader.depth then
    refuse(reader, "not_json", "is not JSON: a value is missing")
  end
end

-- Into a list or an object; `leave` goes out of it.
local function enter(reader)
  reader.depth = deeper(reader, reader.depth)
end

local function leave(reader, close)
  expect(reader, close, "the end of a list or of an object")
  reader.depth = reader.depth - 1
end

-- A key as Go compares it with the names of its fields.
function M.folded(key)
  local plain = gsub(key, "\\u(%x%x%x%x)", function(digits)
    local code = tonumber(digits, 16)
    return code < 128 and char(code) or FOLDED[code]
  end)
  return (gsub(gsub(plain:lower(), "\197\191", "s"), "\226\132\170", "k"))
end

M.refuse, M.spend, M.count, M.peek, M.expect = refuse, spend, count, peek, expect
M.read_string, M.read_gist, M.skip, M.enter, M.leave = read_string, read_gist, skip, enter, leave

return M
