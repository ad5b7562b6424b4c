-- Changes places of a text that comes in parts; all else passes byte for byte.
local max, min, sub = math.max, math.min, string.sub

local M = {}

-- Parts between pauses: of 64 KiB each, about half a millisecond to copy.
local PAUSE = 4

-- In the order of their places. An insertion before the byte n is {n, n - 1, text}: it comes before
-- what replaces that byte. Nearly all are in order already, so each is brought to its place.
local function in_order(edits)
  local sorted, last = {}, nil
  for number = 1, #edits do
    local edit, at = edits[number], number
    if last and (last[1] > edit[1] or last[1] == edit[1] and last[2] > edit[2]) then
      repeat
        sorted[at] = sorted[at - 1]
        at = at - 1
        local before = sorted[at - 1]
      until not before or before[1] < edit[1] or before[1] == edit[1] and before[2] <= edit[2]
    else
      last = edit
    end
    sorted[at] = edit
  end
  for number = 2, #sorted do
    assert(sorted[number][1] > sorted[number - 1][2], "two edits meet")
  end
  return sorted
end

-- The parts of the text whose parts `next` gives, until nil, with `edits` made: {from, to, text} each,
-- counted in bytes of the whole text from 1 on, both inclusive. None is empty. `pause` is called every
-- few parts, so that a long body holds up nobody.
function M.apply(next, edits, pause)
  local sorted, index, base, gone, taken = in_order(edits), 1, 0, 0, 0
  local function changed(text)
    local last, parts = base + #text, {}
    local at = max(1, min(gone, last) - base + 1)
    local edit = sorted[index]
    if at == 1 and (not edit or edit[1] > last) then
      return text
    end
    while edit and edit[1] <= last do
      parts[#parts + 1] = sub(text, at, edit[1] - base - 1)
      parts[#parts + 1] = edit[3]
      at, gone = edit[2] - base + 1, edit[2]
      index = index + 1
      edit = sorted[index]
    end
    parts[#parts + 1] = sub(text, at)
    return table.concat(parts)
  end
  return function()
    for text in next do
      local made = changed(text)
      base, taken = base + #text, taken + 1
      if taken % PAUSE == 0 then
        pause()
      end
      if made ~= "" then
        return made
      end
    end
    assert(not sorted[index], "an edit lies behind the end")
    return nil
  end
end

return M
