-- Reads the JSON of a request in one pass: what in it may not pass, or has to be dropped, and what
-- others want to know of it.
--
-- A shape says what may stand at a place: "any", one of the words of WORDS, {fields = {name = shape}},
-- {each = shape} (a list), or {withheld = reason}. Beside fields: `open = true` lets others pass that
-- are none of these, `content = true` whatever it is; `place` is what its place is told as. Beside
-- each: `turns = true` where it is a conversation, `text = true` where it may be a text instead.
--
-- Servers read JSON in their own ways: Go takes keys without regard to case (Unicode's), the last of
-- two values of a key, and ends at the first value. So nothing is guessed here: a key that is judged
-- must be spelt as it is listed and stand once, and one object is all that there is. Where the text
-- is no JSON at all this may go on, as every server then refuses all of it: what is dropped are whole
-- members, so what is left is read here as it was before, and was judged.
local reading = require "gateway_reader"
local byte, concat, find, gsub = string.byte, table.concat, string.find, string.gsub
local count, expect, peek, read_string, refuse = reading.count, reading.expect, reading.peek, reading.read_string, reading.refuse
local enter, leave, skip, spend = reading.enter, reading.leave, reading.skip, reading.spend

local MAX_KEY = 128
local MAX_MODEL = 512
local MAX_ROLE = 16
local MAX_EDITS = 10000
local MAX_TALK = 16384
local MAX_IGNORED = 20 -- names in a header
local DROP = 20 -- steps that a field counts for that is dropped

local QUOTE, COMMA, COLON, OPEN_LIST, CLOSE_LIST = byte('"'), byte(","), byte(":"), byte("["), byte("]")
local OPEN, CLOSE, NULL, TRUE, FALSE = byte("{"), byte("}"), byte("n"), byte("t"), byte("f")
local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }
-- Why a member is dropped: the caller is told of the first alone.
local IGNORED, NEEDLESS = 1, 2
local EXACTLY = "is no field that is known here; fields are written exactly as documented"

local M = {}
local judge

-- Of the next byte of the text, its place in the whole of it.
local function here(reader)
  return reader.base + reader.at
end

-- A model's name as the server will read it, or nil.
local function unescaped(text)
  local known = true
  local plain = gsub(text, "\\(.)", function(taken)
    known = known and ESCAPES[taken] ~= nil
    return ESCAPES[taken]
  end)
  return known and plain or nil
end

-- Two fields may name it (/api/show's `name` is the older): the same then, and one is enough.
local function read_model(reader)
  if peek(reader) == NULL then
    return skip(reader)
  end
  if peek(reader) ~= QUOTE then
    refuse(reader, "not_json", "must be a text")
  end
  local from = here(reader)
  count(reader)
  local text = read_string(reader, MAX_MODEL)
  local name = text and unescaped(text)
  if not name or find(name, "[^%w._:/@-]") then
    refuse(reader, "not_json", "is no name of a model: letters, digits and ._:/@- are")
  elseif name == "" then
    -- To Go as if the field were not there.
    return nil
  elseif reader.model and name ~= reader.model then
    refuse(reader, "not_json", "names another model than the field before it")
  elseif reader.model then
    return NEEDLESS
  end
  reader.model, reader.places.model = name, { from, here(reader) - 1 }
  return nil
end

local function read_stream(reader)
  local first = peek(reader)
  if first == TRUE or first == FALSE then
    reader.stream = first == TRUE
  end
  skip(reader)
end

local function read_include_usage(reader)
  local is_true, from = peek(reader) == TRUE, here(reader)
  skip(reader)
  reader.places.include_usage = { from, here(reader) - 1, is_true = is_true }
end

local function read_role(reader)
  if peek(reader) ~= QUOTE then
    return skip(reader)
  end
  count(reader)
  reader.role = read_string(reader, MAX_ROLE)
end

-- Keeps what tells this conversation from others.
local function keep(reader, text)
  reader.room = reader.room - #text - 1
  if reader.room > 0 then
    reader.said[#reader.said + 1] = text
  end
end

-- An image, a sound or a file: bytes that are no text.
local function read_blob(reader)
  local from = here(reader)
  skip(reader)
  reader.blobs = reader.blobs + here(reader) - from
end

-- The parts of a message, as each API has them: nothing in them is judged.
local PARTS = { each = { content = true, fields = {
  text = "said", content = "said",
  image_url = "blob", input_audio = "blob", file = "blob", file_data = "blob", source = "blob",
} } }

-- A text, or a list of parts that have texts.
local function read_said(reader)
  local first = peek(reader)
  if first == OPEN_LIST then
    return judge(reader, PARTS)
  elseif reader.quiet or first ~= QUOTE then
    return skip(reader)
  end
  count(reader)
  local head, length, tail = reading.read_gist(reader)
  keep(reader, length == #head and head or head .. "\0" .. length .. "\0" .. tail)
end

-- A prompt grows from turn to turn: what it begins with stays.
local function read_prompt(reader)
  if peek(reader) ~= QUOTE then
    return skip(reader)
  end
  count(reader)
  keep(reader, (reading.read_gist(reader)))
end

local WORDS = {
  any = skip, model = read_model, stream = read_stream, include_usage = read_include_usage,
  role = read_role, said = read_said, prompt = read_prompt, blob = read_blob,
}

local function judge_list(reader, shape)
  local first = peek(reader)
  if first == QUOTE and shape.text then
    return read_said(reader)
  elseif first ~= OPEN_LIST then
    refuse(reader, "not_json", "must be a list")
  end
  local path, place, quiet = reader.path, #reader.path, reader.quiet
  local name, number, turns, each = path[place], 0, shape.turns, shape.each
  enter(reader)
  if peek(reader) ~= CLOSE_LIST then
    while true do
      path[place] = name .. "[" .. number .. "]"
      if turns then
        reader.role = nil
      end
      judge(reader, each)
      -- A conversation is told by what is said up to its first question.
      if turns and reader.role == "user" then
        reader.quiet = true
      end
      number = number + 1
      if peek(reader) ~= COMMA then
        break
      end
      reader.at = reader.at + 1
    end
  end
  leave(reader, CLOSE_LIST)
  path[place], reader.quiet = name, quiet
end

-- What a key is that its shape does not list: its shape, or nil where it is dropped.
--
-- Clients send new fields all the time, and a server takes no notice of those that it does not
-- know. So one that is not known here never reaches a server, and the caller is told so, instead of
-- being refused for it: nothing can be set by it, whatever it would mean there. But what the server
-- would take for a field that passes is refused: dropped, `Messages` would be a chat of nothing.
local function unlisted(reader, shape, key)
  if shape.content then
    return "any"
  end
  local listed = key and shape.fields[reading.folded(key)]
  if shape.open and key and not listed then
    return "any"
  elseif shape.open or reader.way == "refuse" then
    refuse(reader, "unknown_field", EXACTLY)
  elseif listed and (reader.way == "allow" or not listed.withheld) then
    refuse(reader, "unknown_field", EXACTLY)
  end
  return nil
end

-- The name of what was dropped, for a header: without the numbers of elements, each once.
local function tell(reader)
  local ignored = reader.ignored
  spend(reader, DROP)
  if #ignored > MAX_IGNORED then
    return
  end
  local name = concat(reader.path, ".")
  if find(name, "[^%w_.]") then
    name = gsub(gsub(name, "%[%d+%]", "[]"), "[^%w_.%[%]() -]", "?")
  end
  if not reader.told[name] then
    reader.told[name] = true
    ignored[#ignored + 1] = #ignored < MAX_IGNORED and name or "..."
  end
end

-- Reads a field and its value. Whether it is dropped: IGNORED, NEEDLESS or nil.
local function judge_member(reader, shape, seen, place)
  if peek(reader) ~= QUOTE then
    refuse(reader, "not_json", "is not JSON: the name of a field is missing")
  end
  count(reader)
  local path, key = reader.path, read_string(reader, MAX_KEY)
  path[place] = not key and "(a long name)" or key == "" and "(an empty name)" or key
  local wanted = key and shape.fields[key] or unlisted(reader, shape, key)
  if wanted and not shape.content then
    if seen[key] then
      refuse(reader, "not_json", "stands there twice")
    end
    seen[key] = true
  end
  expect(reader, COLON, "a colon")
  local dropped = IGNORED
  if wanted then
    dropped = judge(reader, wanted)
  else
    skip(reader)
  end
  if dropped == IGNORED then
    tell(reader)
  end
  path[place] = nil
  return dropped
end

local function change(reader, from, to)
  local edits = reader.edits
  if #edits >= MAX_EDITS then
    refuse(reader, "too_complex", "has more than " .. MAX_EDITS .. " fields that are not passed on")
  end
  local edit = { from, to, "" }
  edits[#edits + 1] = edit
  return edit
end

-- Reads the members up to the object's end, and has those dropped that are: each goes with the comma
-- before it, or with the one behind it where nothing before it stays. Whether any stays.
local function members(reader, shape, place)
  -- `edit` is what drops the member before, if one does; `comma` is the place of the last.
  local seen, stays, edit, comma = {}, false, nil, nil
  repeat
    peek(reader)
    local from = here(reader)
    local dropped = judge_member(reader, shape, seen, place)
    local to = here(reader) - 1
    local next_comma = peek(reader) == COMMA and here(reader) or nil
    if not dropped then
      stays, edit = true, nil
    else
      to = not stays and next_comma or to
      if edit then
        edit[2] = to
      else
        edit = change(reader, stays and comma or from, to)
      end
    end
    comma = next_comma
    reader.at = reader.at + (comma and 1 or 0)
  until not comma
  return stays
end

local function judge_object(reader, shape)
  if peek(reader) ~= OPEN then
    if shape.content then
      return skip(reader)
    end
    refuse(reader, "not_json", "must be an object")
  end
  local open, place = here(reader), #reader.path + 1
  enter(reader)
  local stays = peek(reader) ~= CLOSE and members(reader, shape, place)
  leave(reader, CLOSE)
  if place == 1 then
    reader.places.open, reader.places.is_empty = open, not stays
  elseif shape.place then
    reader.places[shape.place] = { open = open, is_empty = not stays }
  end
end

-- Judges a value. Where the field that has it is dropped: IGNORED or NEEDLESS.
function judge(reader, shape)
  local word = WORDS[shape]
  if word then
    return word(reader)
  elseif peek(reader) == NULL then
    -- To Go as if the field were not there. Where a place is told, nothing may stand there twice.
    skip(reader)
    return shape.place and NEEDLESS or nil
  elseif shape.withheld then
    if reader.way == "refuse" then
      refuse(reader, "withheld", shape.withheld)
    end
    skip(reader)
    return reader.way == "ignore" and IGNORED or nil
  elseif shape.each then
    return judge_list(reader, shape)
  end
  return judge_object(reader, shape)
end

-- Judges the text whose parts `next` gives, until nil. `way` is what becomes of withheld fields:
-- "refuse", "ignore" (they are dropped) or "allow". `pause` is called every few milliseconds.
--
-- Returns a table. `verdict` is nil, or {code, field, reason} of what may not pass; `model` its name as
-- written, or nil; `stream` true, false, or nil; `edits` what gateway_edit has to drop, ascending, and
-- `ignored` the names of those fields; `places`, in bytes from 1 on: `model` {from, to} with its quotes,
-- `open` the outer brace, `is_empty` whether that object has no field that stays, `stream_options` {open,
-- is_empty} or nil, `include_usage` {from, to, is_true =} of its value or nil; `talk` a text that tells this
-- conversation from others at all its turns, or nil; `blobs` how many bytes are of images and the like.
function M.judge(next, shape, way, pause)
  local reader = reading.new(next, pause)
  reader.way, reader.room, reader.said, reader.blobs = way, MAX_TALK, {}, 0
  reader.edits, reader.ignored, reader.told, reader.places = {}, {}, {}, {}
  local passed, problem = pcall(function()
    judge_object(reader, shape)
    if peek(reader) then
      refuse(reader, "not_json", "goes on after the end of its JSON")
    end
  end)
  if not passed and type(problem) ~= "table" then
    error(problem, 0)
  end
  return {
    model = reader.model, verdict = not passed and problem or nil, stream = reader.stream,
    ignored = reader.ignored, edits = reader.edits, places = reader.places,
    talk = #reader.said > 0 and concat(reader.said, "\0") or nil, blobs = reader.blobs,
  }
end

return M
