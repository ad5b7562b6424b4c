-- Changes places of a text that comes in parts; all else passes byte for byte.
local max, min, sub = math.max, math.min, string.sub

local M = {}

-- An insertion before the byte n is {n, n - 1, text}: it comes before what replaces that byte.
local function comes_before(one, other)
  return one[1] < other[1] or one[1] == other[1] and one[2] < other[2]
end

local function in_order(edits)
  local sorted = {}
  for number = 1, #edits do
    sorted[number] = edits[number]
  end
  table.sort(sorted, comes_before)
  for number = 2, #sorted do
    assert(sorted[number][1] > sorted[number - 1][2], "two edits meet")
  end
  return sorted
end

-- The parts of the text whose parts `next` gives, until nil, with `edits` made: {from, to, text} each,
-- counted in bytes of the whole text from 1 on, both inclusive, in any order. None is empty.
function M.apply(next, edits)
  local sorted, index, base, gone = in_order(edits), 1, 0, 0
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
      base = base + #text
      if made ~= "" then
        return made
      end
    end
    assert(not sorted[index], "an edit lies behind the end")
    return nil
  end
end

return M
