-- The lines of a stream, read as they come; of what the client had not asked for, nothing is left.
--
-- What is passed on is the server's, byte for byte, but for lines that `read` changes. A line waits for
-- its own end alone, and only where it may have to be changed.
local byte, concat, find, match, sub = string.byte, table.concat, string.find, string.match, string.sub

local HELD = 65536 -- bytes of a line that wait for its end; a longer one is passed on as it is
local KEPT = 1048576 -- bytes of a line that are kept to be read; of a longer one only its end is
local TAIL = 16384
local FEED, RETURN = 10, 13

local M = {}

-- `read(text, is_cut)` is called with each event's JSON, and where `may_change` returns nil (as it is),
-- "" (the whole event is to vanish), or another text. `is_cut`: only the end of it is there.
-- `is_events`: server-sent events; else each line is JSON.
function M.new(read, is_events, may_change)
  return { read = read, is_events = is_events, may_change = may_change, parts = {}, size = 0, waits = 0 }
end

local function add(stream, text)
  local parts = stream.parts
  parts[#parts + 1] = text
  stream.size = stream.size + #text
  if stream.size > KEPT then
    local tail = sub(concat(parts), -TAIL)
    stream.parts, stream.size, stream.is_cut = { tail }, #tail, true
  end
end

-- The line that ends with `text`, and whether its beginning is missing.
local function taken(stream, text)
  if stream.size == 0 then
    return text, false
  end
  local line, is_cut = concat(stream.parts) .. text, stream.is_cut
  stream.parts, stream.size, stream.is_cut = {}, 0, nil
  return line, is_cut
end

-- Where the end of a line begins.
local function end_of(line)
  local size = #line
  if byte(line, size) ~= FEED then
    return size + 1
  end
  return byte(line, size - 1) == RETURN and size - 1 or size
end

-- What becomes of a line of server-sent events: nil as it is, or another text.
local function event_line(stream, line, is_cut)
  if line == "\n" or line == "\r\n" then
    -- The end of an event: with the last of its lines it goes, too.
    local is_gone = stream.is_dropped and not stream.is_begun
    stream.is_dropped, stream.is_begun = nil, nil
    return is_gone and "" or nil
  end
  local from = is_cut and 1 or match(line, "^data: ?()")
  local changed
  if from then
    local stop = end_of(line)
    local text = stream.read(sub(line, from, stop - 1), is_cut)
    if text == "" then
      stream.is_dropped = true
      return ""
    end
    changed = text and sub(line, 1, from - 1) .. text .. sub(line, stop)
  end
  stream.is_begun = true
  return changed
end

local function whole_line(stream, line, is_cut)
  if stream.is_events then
    return event_line(stream, line, is_cut)
  end
  stream.read(line, is_cut)
end

-- What becomes of the part of a line that `text` ends with. Adds to `out` what is passed on of it.
local function rest_of(stream, rest, is_last, out)
  if is_last and (rest ~= "" or stream.size > 0) then
    -- A last line without an end is a line.
    local line, is_cut = taken(stream, rest)
    local changed = whole_line(stream, line, is_cut)
    out[#out + 1] = stream.is_passing and rest or changed or line
    return changed == nil or stream.is_passing
  end
  if rest == "" then
    return true
  end
  local is_same = true
  if stream.is_passing then
    out[#out + 1] = rest
  elseif stream.waits + #rest > HELD then
    out[#out + 1] = concat(stream.parts) .. rest
    stream.waits, stream.is_passing = 0, true
  else
    stream.waits, is_same = stream.waits + #rest, false
  end
  add(stream, rest)
  return is_same
end

-- Gives the next `text` of the stream. Returns nil where it is passed on as it is, else what is.
-- `is_last`: nothing comes after it.
function M.feed(stream, text, is_last)
  local from, out, is_same = 1, {}, stream.waits == 0
  while true do
    local stop = find(text, "\n", from, true)
    if not stop then
      break
    end
    local part = sub(text, from, stop)
    local line, is_cut = taken(stream, part)
    local changed = whole_line(stream, line, is_cut)
    if stream.is_passing then
      -- Its beginning has been passed on.
      out[#out + 1] = part
    else
      out[#out + 1] = changed or line
      is_same = is_same and not changed
    end
    stream.waits, stream.is_passing = 0, false
    from = stop + 1
  end
  is_same = rest_of(stream, sub(text, from), is_last, out) and is_same
  if is_same or not stream.may_change then
    return nil
  end
  return concat(out)
end

return M
