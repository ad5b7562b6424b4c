-- Names of models: several ways to write one are one name.
local M = {}

function M.plain(text)
  text = text:lower()
  return text:find(":[^/]*$") and text or text .. ":latest"
end

return M
