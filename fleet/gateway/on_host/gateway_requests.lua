-- What nginx calls at each request: before it is passed on, and at each error of nginx's own.
local errors = require "gateway_errors"
local fields = require "gateway_fields"
local judge = require "gateway_judge"

local CHUNK = 65536 -- bytes
local M = {}
local texts, read_timeout, refusals = {}, 0, 0

-- `limits`: read_timeout in seconds, max_body in MiB, refusals a minute.
function M.start(limits)
  read_timeout, refusals = limits.read_timeout, limits.refusals
  texts = {
    [413] = "the request is larger than " .. limits.max_body .. " MiB",
    [504] = "the host did not answer within " .. read_timeout .. " seconds",
  }
end

-- Counts a request without a valid key against its address (of IPv6, a network of 64 bits): "" while
-- there are few in this minute, "first" for the one that is too many, "over" for all after it.
function M.stranger()
  local address = string.sub(ngx.var.binary_remote_addr, 1, 8)
  local count = ngx.shared.strangers:incr(address, 1, 0, 60) or 0
  if count <= refusals then
    return ""
  end
  return count == refusals + 1 and "first" or "over"
end

-- The parts of the request's body: in memory, or in nginx's file where it is larger.
local function parts()
  local name = ngx.req.get_body_file()
  if not name then
    local whole = ngx.req.get_body_data()
    return function()
      local text = whole
      whole = nil
      return text
    end
  end
  local file = assert(io.open(name, "rb"))
  return function()
    local text = file:read(CHUNK)
    if not text then
      file:close()
    end
    return text
  end
end

-- Lets other requests have their turn; 0 would not, before version 0.10.26 of the module.
local function pause()
  ngx.sleep(0.001)
end

-- Judges the body of a request to `call`, a path of gateway_fields.
function M.judge(call)
  ngx.req.read_body()
  local model, verdict = judge.judge(parts(), fields[call], ngx.var.overriding == "1", pause)
  if verdict then
    ngx.ctx.problem = errors.of_verdict(verdict)
    return ngx.exit(400)
  end
  ngx.var.model = model or ""
end

-- The same for what an admin calls: of a change's body only the model's name is read.
function M.judge_managed()
  local method = ngx.req.get_method()
  if method ~= "GET" and method ~= "HEAD" then
    M.judge("managed")
  end
end

-- Whether the last host that was asked was waited for as long as a host may take.
local function was_waited_for()
  local seconds = string.match(ngx.var.upstream_response_time or "", "([%d.]+)$")
  return seconds and tonumber(seconds) >= read_timeout - 1
end

-- nginx's own pages are HTML, and nothing that it serves or passes on is.
function M.head()
  local status = ngx.status
  if status < 400 or ngx.header.content_type ~= "text/html" then
    return
  end
  if status == 504 and not was_waited_for() then
    -- It could not be reached, or was lost on the way.
    status = 502
    ngx.status = status
  end
  local uri = ngx.var.uri
  if uri == nil or uri == "" then
    uri = errors.address(ngx.var.request)
  end
  local text = errors.body(status, uri, ngx.ctx.problem, texts)
  ngx.ctx.text = text
  ngx.header.content_type = "application/json"
  ngx.header.content_length = #text
end

function M.body()
  if ngx.status < 400 then
    return
  end
  local text = ngx.ctx.text
  if text then
    ngx.arg[1], ngx.arg[2] = text, true
  end
end

return M
