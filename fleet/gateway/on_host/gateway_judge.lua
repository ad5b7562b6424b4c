-- Reads the JSON of a request in one pass and says what in it may not pass.
--
-- A shape says what may stand at a place: "any", "model" (a model's name), {fields = {name = shape}},
-- {each = shape} (a list), or {withheld = reason}. `open = true` beside fields lets other fields pass.
--
-- Servers read JSON in their own ways: Go takes keys without regard to case (Unicode's), the last of
-- two values of a key, and ends at the first value. So nothing is guessed here: a key that is judged
-- must be spelt as it is listed and stand once, and one object is all that there is. Where the text
-- is no JSON at all this may go on, as every server then refuses all of it.
local byte, concat, find, sub = string.byte, table.concat, string.find, string.sub

local MAX_DEPTH = 64
local MAX_VALUES = 500000 -- of keys and values
local MAX_KEY = 128
local MAX_MODEL = 512
local MAX_PLAIN = 400
local MAX_QUOTES = 2000000 -- within texts
local MAX_BACKSLASHES = 10000 -- in a row
local PAUSE = 8000 -- steps between pauses, about two milliseconds
local CHUNK = 1000 -- steps that a chunk counts for

local QUOTE, BACKSLASH, COMMA, COLON = byte('"'), byte("\\"), byte(","), byte(":")
local NULL = byte("n")
local OPEN_LIST, CLOSE_LIST, OPEN, CLOSE = byte("["), byte("]"), byte("{"), byte("}")
local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local M = {}

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
  local text = reader.next()
  if not text then
    return false
  end
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

-- How many backslashes stand right before `at`; `carried` is how many ended the chunk before.
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

-- Reads a string to its end. The text between its quotes, as it is written; nil when it is longer
-- than `limit` bytes.
local function read_string(reader, limit)
  expect(reader, QUOTE, "a quote")
  local from, carried, length, parts = reader.at, 0, 0, {}
  local search = from
  while true do
    local text = reader.text
    local quote = find(text, '"', search, true)
    local stop = (quote or #text + 1) - 1
    local taken = backslashes(reader, search, stop + 1, carried)
    if not quote or taken % 2 == 0 then
      length = length + stop - from + 1
      if length <= limit then
        parts[#parts + 1] = sub(text, from, stop)
      end
    end
    if not quote then
      if not more(reader) then
        refuse(reader, "not_json", "ends in the middle of a text")
      end
      from, search, carried = 1, 1, taken
    elseif taken % 2 == 0 then
      reader.at = quote + 1
      return length <= limit and concat(parts) or nil
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

-- A whole value, whatever it is.
local function skip(reader)
  local depth = reader.depth
  repeat
    local first = peek(reader)
    if first == QUOTE then
      count(reader)
      read_string(reader, 0)
    elseif first == OPEN or first == OPEN_LIST then
      count(reader)
      depth = depth + 1
      if depth > MAX_DEPTH then
        refuse(reader, "too_complex", "is nested more than " .. MAX_DEPTH .. " deep")
      end
      reader.at = reader.at + 1
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

local function is_null(reader)
  return peek(reader) == NULL
end

-- A model's name as the server will read it, or nil.
local function unescaped(text)
  local known = true
  local plain = text:gsub("\\(.)", function(taken)
    known = known and ESCAPES[taken] ~= nil
    return ESCAPES[taken]
  end)
  return known and plain or nil
end

local function read_model(reader)
  if is_null(reader) then
    return skip(reader)
  end
  if peek(reader) ~= QUOTE then
    refuse(reader, "not_json", "must be a text")
  end
  count(reader)
  local text = read_string(reader, MAX_MODEL)
  local name = text and unescaped(text)
  if not name or find(name, "[^%w._:/@-]") then
    refuse(reader, "not_json", "is no name of a model: letters, digits and ._:/@- are")
  end
  reader.model = name
end

local judge

local function enter(reader)
  count(reader)
  reader.at = reader.at + 1
  reader.depth = reader.depth + 1
  if reader.depth > MAX_DEPTH then
    refuse(reader, "too_complex", "is nested more than " .. MAX_DEPTH .. " deep")
  end
end

-- Calls `element(number)` at each element of a list or an object, up to its end.
local function elements(reader, close, element)
  enter(reader)
  if peek(reader) ~= close then
    local number = 0
    while true do
      element(number)
      number = number + 1
      if peek(reader) ~= COMMA then
        break
      end
      reader.at = reader.at + 1
    end
  end
  expect(reader, close, "the end of a list or of an object")
  reader.depth = reader.depth - 1
end

local function judge_list(reader, shape)
  if peek(reader) ~= OPEN_LIST then
    refuse(reader, "not_json", "must be a list")
  end
  local path, place = reader.path, #reader.path
  local name = path[place]
  elements(reader, CLOSE_LIST, function(number)
    path[place] = name .. "[" .. number .. "]"
    judge(reader, shape.each)
  end)
  path[place] = name
end

local function shape_of(reader, shape, key)
  local known = key and shape.fields[key]
  if known then
    return known
  end
  -- A key that the server could take for a listed one is none of the others.
  if shape.open and key and not shape.fields[key:lower()] and not find(key, "\\", 1, true) then
    return "any"
  end
  refuse(reader, "unknown_field", "is no field that is known here; fields are written exactly as documented")
end

local function judge_object(reader, shape)
  if peek(reader) ~= OPEN then
    refuse(reader, "not_json", "must be an object")
  end
  local path, place, seen = reader.path, #reader.path + 1, {}
  elements(reader, CLOSE, function()
    count(reader)
    if peek(reader) ~= QUOTE then
      refuse(reader, "not_json", "is not JSON: the name of a field is missing")
    end
    local key = read_string(reader, MAX_KEY)
    path[place] = not key and "(a long name)" or key == "" and "(an empty name)" or key
    local wanted = shape_of(reader, shape, key)
    if seen[key] then
      refuse(reader, "not_json", "stands there twice")
    end
    seen[key] = true
    expect(reader, COLON, "a colon")
    judge(reader, wanted)
    path[place] = nil
  end)
end

function judge(reader, shape)
  if shape == "any" then
    skip(reader)
  elseif shape == "model" then
    read_model(reader)
  elseif is_null(reader) then
    -- To Go as if the field were not there.
    skip(reader)
  elseif shape.withheld then
    if not reader.overriding then
      refuse(reader, "withheld", shape.withheld)
    end
    skip(reader)
  elseif shape.each then
    judge_list(reader, shape)
  else
    judge_object(reader, shape)
  end
end

-- Judges the text whose parts `next` gives, until nil, for a key of which `way` says what becomes of
-- the fields that are withheld. `pause` is called every few milliseconds. Returns {model: its name,
-- nil where there is none; verdict: {code, field, reason} where something may not pass}.
function M.judge(next, shape, way, pause)
  local reader = {
    next = next, pause = pause, overriding = way == "allow",
    text = "", at = 1, depth = 0, values = 0, quotes = 0, steps = 0, path = {},
  }
  local passed, problem = pcall(function()
    judge_object(reader, shape)
    if peek(reader) then
      refuse(reader, "not_json", "goes on after the end of its JSON")
    end
  end)
  if not passed and type(problem) ~= "table" then
    error(problem, 0)
  end
  return { model = reader.model, verdict = not passed and problem or nil, ignored = {}, edits = {}, places = {} }
end

return M
