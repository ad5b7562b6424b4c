-- Names of models: [host/][namespace/]model[:tag], and which of them are the same to Ollama.
-- fleet/gateway/names.py is the same in Python; a test holds the two equal.
local find, lower, match = string.find, string.lower, string.match

-- What Ollama fills in where a name says nothing (its types/model/name.go).
local HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
local MAX_HOST, MAX_PART = 350, 80 -- bytes

local M = {}

-- Letters, digits and what `others` adds; the first is a letter, a digit or an underscore.
local function is_part(text, others, limit)
  return #text <= limit and find(text, "^[%w_][%w_" .. others .. "-]*$") ~= nil
end

-- Before and after the last `mark` in `text`; nil and all of it where there is none.
local function cut_last(text, mark)
  local before, after = match(text, "^(.*)" .. mark .. "([^" .. mark .. "]*)$")
  return before, after or text
end

-- How the name `text` is written here: in lower case, with its tag, without Ollama's own host and
-- namespace. Equal ones are one model. Nil where it is no name.
function M.plain(text)
  local rest, tag = match(text, "^(.*):([^:/]*)$")
  rest, tag = rest or text, tag or TAG
  local host, namespace, model = HOST, NAMESPACE, nil
  rest, model = cut_last(rest, "/")
  if rest then
    rest, namespace = cut_last(rest, "/")
  end
  if rest then
    -- Ollama takes a scheme, and forgets it.
    host = match(rest, "^.-://(.*)$") or rest
  end
  if not (
    is_part(host, ".:", MAX_HOST) and is_part(namespace, "", MAX_PART)
    and is_part(model, ".", MAX_PART) and is_part(tag, ".", MAX_PART)
  ) then
    return nil
  end
  local name = model .. ":" .. tag
  if lower(host) ~= HOST then
    name = host .. "/" .. namespace .. "/" .. name
  elseif lower(namespace) ~= NAMESPACE then
    name = namespace .. "/" .. name
  end
  return lower(name)
end

return M
