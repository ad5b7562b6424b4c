-- The tokens of answers.
local M = {}

function M.edits()
  return {}
end

function M.begin()
end

function M.head()
end

function M.body()
end

function M.finish()
end

return M
