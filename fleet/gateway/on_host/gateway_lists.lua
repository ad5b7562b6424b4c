-- Which models there are, in the formats of the APIs.
local M = {}

function M.tags()
  return 200, '{"models":[]}'
end

function M.ps()
  return 200, '{"models":[]}'
end

function M.openai()
  return 200, '{"object":"list","data":[]}'
end

function M.openai_one()
  return 404
end

return M
