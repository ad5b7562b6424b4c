-- Errors of the gateway itself, each in the dialect of the API that was called.
local cjson = require "cjson.safe"
local byte, find, format, gsub, match = string.byte, string.find, string.format, string.gsub, string.match

local PLAIN = 500 -- bytes of a text that is no JSON
local M = {}

-- Status to the types of OpenAI and of Anthropic, and the code of OpenAI.
local KINDS = {
  [401] = { "authentication_error", "authentication_error", "invalid_api_key" },
  [403] = { "permission_error", "permission_error", "not_allowed" },
  [404] = { "not_found_error", "not_found_error" },
  [413] = { "invalid_request_error", "request_too_large" },
  [429] = { "rate_limit_error", "rate_limit_error", "rate_limit_exceeded" },
  [503] = { "api_error", "overloaded_error" },
  [504] = { "timeout_error", "timeout_error" },
}
local CLIENTS = { "invalid_request_error", "invalid_request_error" }
local SERVERS = { "api_error", "api_error" }

local TEXTS = {
  [400] = "this is no HTTP request that can be served: its line or its headers are malformed or too large",
  [401] = "a valid API key is needed: Authorization: Bearer <key>, or x-api-key: <key>",
  [403] = "this key may not do this, or not from here",
  [404] = "no such path here",
  [405] = "method not allowed",
  [408] = "the request did not arrive in time",
  [411] = "a request with a body needs its length",
  [414] = "the address is too long",
  [415] = "a compressed body is not read here; send it as it is",
  [429] = "more requests than this key or address may send; see Retry-After",
  [500] = "the gateway cannot serve this now",
  [501] = "the gateway does not know this method, or this way to send a body",
  [502] = "no host can answer now",
  [503] = "the gateway has no room for this now",
  [505] = "HTTP/1.0 and HTTP/1.1 are served here",
}

local function quoted(text)
  local escaped = gsub(text, '[%c"\\\127-\255]', function(one)
    local code = byte(one)
    return (code == 34 or code == 92) and "\\" .. one or format("\\u%04x", code < 128 and code or 0xfffd)
  end)
  return '"' .. escaped .. '"'
end

-- `ollama`, `openai` or `anthropic`; nil where the address tells none of them.
function M.dialect(uri)
  if find(uri, "^/api/") or find(uri, "^/hosts/[^/]+/api/") or find(uri, "^/hosts/[^/]+/[^/]+/api/") then
    return "ollama"
  end
  if uri == "/v1/messages" or find(uri, "^/v1/messages/") then
    return "anthropic"
  end
  return find(uri, "^/v1/") and "openai" or nil
end

-- The body of an error. `problem` is nil, or {text, code, field} of a request that was read.
function M.body(status, uri, problem, texts)
  local kind = KINDS[status] or (status < 500 and CLIENTS or SERVERS)
  local text = problem and problem.text or texts[status] or TEXTS[status] or "status " .. status
  local code = problem and problem.code or kind[3]
  local dialect = M.dialect(uri)
  if dialect == "ollama" then
    return format('{"error":%s}\n', quoted(text))
  elseif dialect == "anthropic" then
    return format('{"type":"error","error":{"type":"%s","message":%s}}\n', kind[2], quoted(text))
  end
  return format(
    '{%s"error":{"message":%s,"type":"%s","param":%s,"code":%s}}\n',
    -- Where no dialect is known, the clients of both find what they look for.
    dialect and "" or '"type":"error",', quoted(text), kind[1],
    problem and problem.field and quoted(problem.field) or "null", code and quoted(code) or "null"
  )
end

local function words(value)
  return type(value) == "string" and value ~= "" and value or nil
end

-- What an error of a server says, of whatever shape, and whether it is one of OpenAI's or Anthropic's.
local function said(text)
  local whole = cjson.decode(text)
  if type(whole) ~= "table" then
    -- A page is not for people who asked an API.
    return { text = not find(text, "^%s*<") and words(match(text, "^%s*(.-)%s*$"):sub(1, PLAIN)) or nil }
  end
  local inner = whole.error
  if type(inner) == "table" then
    local dialect = whole.type == "error" and "anthropic" or "openai"
    local code = words(inner.code)
    return { text = words(inner.message), code = code, field = words(inner.param) }, words(inner.message) and dialect
  end
  local detail = whole.detail
  if type(detail) == "table" and type(detail[1]) == "table" then
    detail = detail[1].msg
  end
  return { text = words(inner) or words(detail) or words(whole.message) }
end

-- The same for the caller of `uri` that a server has said in `text`: as it is where its dialect is right.
function M.translated(status, uri, text)
  local problem, dialect = said(text)
  if dialect and dialect == (M.dialect(uri) or "openai") then
    return text
  end
  return M.body(status, uri, problem.text and problem, {})
end

-- What `M.body` says of a verdict of gateway_judge: {code, field, reason}.
function M.of_verdict(verdict)
  local field = #verdict.field > 200 and verdict.field:sub(1, 200) .. "..." or verdict.field
  local codes = { withheld = "override_not_allowed", unknown_field = "unknown_parameter" }
  return {
    text = (field == "" and "the body" or "'" .. field .. "'") .. " " .. verdict.reason,
    code = codes[verdict.code],
    field = field ~= "" and field or nil,
  }
end

-- The address that a request line names, where nginx could not read it.
function M.address(line)
  return match(line or "", "^%S+%s+([^%s?]+)") or ""
end

return M
