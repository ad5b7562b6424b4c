-- A text with some of its bytes replaced.
local M = {}

function M.apply(next, edits)
  local whole = {}
  for text in next do
    whole[#whole + 1] = text
  end
  local text, parts, at = table.concat(whole), {}, 1
  for _, one in ipairs(edits) do
    parts[#parts + 1] = text:sub(at, one[1] - 1)
    parts[#parts + 1] = one[3]
    at = one[2] + 1
  end
  parts[#parts + 1] = text:sub(at)
  local number = 0
  return function()
    number = number + 1
    return parts[number]
  end
end

return M
