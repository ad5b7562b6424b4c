-- What nginx calls in each phase of a request.
local cjson = require "cjson.safe"
local callers = require "gateway_callers"
local clock = require "gateway_clock"
local counts = require "gateway_counts"
local edit = require "gateway_edit"
local errors = require "gateway_errors"
local fields = require "gateway_fields"
local health = require "gateway_health"
local judge = require "gateway_judge"
local lists = require "gateway_lists"
local route = require "gateway_route"
local store = require "gateway_store"
local usage = require "gateway_usage"

local CHUNK = 65536 -- bytes
local HEARD = 64 -- parts of an error
-- Path, as nginx's location has it, to what a server must speak to be asked.
local SURFACES = {
  ["v1/messages"] = "anthropic",
  ["v1/messages/count_tokens"] = "anthropic",
}
-- What admins may call on one host, and how.
local MANAGED = {
  ["api/pull"] = { POST = true }, ["api/create"] = { POST = true }, ["api/show"] = { POST = true },
  ["api/delete"] = { DELETE = true }, ["api/ps"] = { GET = true, HEAD = true },
  ["api/tags"] = { GET = true, HEAD = true }, ["api/version"] = { GET = true, HEAD = true },
}
local M = {}
local texts, read_timeout, refusals, state, generation = {}, 0, 0, nil, nil

local function lines(path)
  local found = {}
  for line in io.lines(path) do
    if line ~= "" and line:sub(1, 1) ~= "#" then
      found[line] = true
    end
  end
  return found
end

-- `path` is what fleet/gateway/declared_lua.py has written, `idle` names who gets no requests.
function M.init(path, idle)
  local declared = dofile(path)
  read_timeout, refusals, state = declared.read_timeout, declared.refusals, declared.state
  texts = {
    [413] = "the request is larger than " .. declared.max_body .. " MiB",
    [504] = "the host did not answer within " .. read_timeout .. " seconds",
  }
  counts.init()
  callers.init(declared)
  route.init(declared, lines(idle))
  local chance = assert(io.open("/dev/urandom", "rb"))
  generation = chance:read(16):gsub(".", function(char) return string.format("%02x", char:byte()) end)
  chance:close()
end

function M.start()
  counts.start()
  store.start(state)
  route.start()
end

M.stop = store.stop

-- Counts a request without a valid key against its address (of IPv6, a network of 64 bits): "" while
-- there are few in this minute, "first" for the one that is too many, "over" for all after it.
local function stranger()
  if refusals == 0 then
    return ""
  end
  local address = string.sub(ngx.var.binary_remote_addr, 1, 8)
  local count = ngx.shared.strangers:incr(address, 1, 0, 60) or 0
  if count <= refusals then
    return ""
  end
  return count == refusals + 1 and "first" or "over"
end

-- The status with which a request is refused before nginx looks at anything else of it; "" when its
-- caller is known.
function M.enter()
  local var = ngx.var
  local caller = callers.find(var.http_authorization, var.http_x_api_key)
  if not caller then
    if var.uri == "/healthz" then
      return ""
    end
    local many = stranger()
    var.stranger = many
    return many == "" and "401" or "429"
  end
  ngx.ctx.caller = caller
  var.client_name = caller.name
  if caller.from and not callers.may_come_from(caller, var.binary_remote_addr) then
    return "403"
  end
  return ""
end

local function refuse(status, text, code, field)
  ngx.ctx.problem = { text = text, code = code, field = field }
  return ngx.exit(status)
end

-- Counts the request against what its key may have.
local function admit()
  local ctx = ngx.ctx
  local headers = {}
  ctx.headers = headers
  local why = callers.enter(ctx.caller, headers)
  if why then
    headers["Retry-After"] = why.retry_after
    return refuse(429, why.text, "rate_limit_exceeded")
  end
  ctx.is_counted = true
end

local function is_read()
  local method = ngx.req.get_method()
  return method == "GET" or method == "HEAD"
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

-- The body of a request to `call`, a path of gateway_fields, as gateway_judge tells of it.
local function judged(call, way)
  ngx.req.read_body()
  local found = judge.judge(parts(), fields[call], way, pause)
  if found.verdict then
    ngx.ctx.problem = errors.of_verdict(found.verdict)
    return ngx.exit(400)
  end
  return found
end

-- Puts the body with `edits` in the place of what was read.
local function rewrite(edits)
  if #edits == 0 then
    return
  end
  local changed = edit.apply(parts(), edits, pause)
  if not ngx.req.get_body_file() then
    local texts_ = {}
    for text in changed do
      texts_[#texts_ + 1] = text
    end
    return ngx.req.set_body_data(table.concat(texts_))
  end
  ngx.req.init_body(CHUNK)
  for text in changed do
    ngx.req.append_body(text)
  end
  ngx.req.finish_body()
end

-- What is asked instead at a server that speaks OpenAI's API alone; else a chat.
local INSTEAD = {
  ["api/embed"] = "/v1/embeddings", ["api/embeddings"] = "/v1/embeddings",
  ["api/generate"] = "/v1/completions", ["api/show"] = "/v1/models/<name>",
}

-- What is not ours is reached by a socket file, which is called from no address.
local function from_nowhere(chosen)
  if chosen.server.relayed and ngx.var.calls_from then
    ngx.var.calls_from = ""
  end
end

-- Has the request go to a server that has `name` (nil: any model).
local function choose(name, surface, talk)
  local ctx = ngx.ctx
  local found, why = route.find(name, surface, ctx.caller.models)
  if not found and why == "other" then
    local instead = INSTEAD[ngx.var.call] or "/v1/chat/completions"
    local text = "model '" .. name .. "' is served by OpenAI's API alone: use " .. instead
    return refuse(400, text, "wrong_api", "model")
  elseif not found and why == "down" then
    local which = name and "that has the model '" .. name .. "' " or ""
    return refuse(503, "no host " .. which .. "can answer now", "no_host")
  elseif not found then
    return refuse(404, "model '" .. name .. "' not found", "model_not_found", "model")
  end
  route.choose(found, talk)
  from_nowhere(ctx.route)
end

-- A request to a model.
function M.infer()
  local ctx, call = ngx.ctx, ngx.var.call
  if ngx.req.get_method() ~= "POST" then
    return ngx.exit(405)
  end
  local packing = ngx.var.http_content_encoding
  if packing and packing ~= "" and packing:lower() ~= "identity" then
    return ngx.exit(415)
  end
  admit()
  local found = judged(call, ctx.caller.overrides)
  if #found.ignored > 0 then
    ctx.headers["X-Ignored-Fields"] = table.concat(found.ignored, ", ")
  end
  if not found.model or found.model == "" then
    return refuse(400, "model is required", nil, "model")
  end
  ngx.var.model = found.model
  local surface = SURFACES[call] or call:sub(1, 4) == "api/" and "ollama" or "openai"
  choose(found.model, surface, found.talk)
  local chosen, edits = ctx.route, found.edits
  for _, one in ipairs(usage.edits(call, found)) do
    edits[#edits + 1] = one
  end
  if chosen.model ~= found.model then
    edits[#edits + 1] = { found.places.model[1], found.places.model[2], '"' .. chosen.model .. '"' }
  end
  rewrite(edits)
  usage.begin(call, found)
end

-- What Ollama says of its version, from any of them.
function M.version()
  if not is_read() then
    return ngx.exit(405)
  end
  admit()
  choose(nil, "ollama", nil)
end

-- What the fleet has, as far as the caller may use it.
function M.list()
  if not is_read() then
    return ngx.exit(405)
  end
  admit()
  local var, allowed = ngx.var, ngx.ctx.caller.models
  local path, status, text = var.list, nil, nil
  if path == "api/tags" then
    status, text = lists.tags(allowed)
  elseif path == "api/ps" then
    status, text = lists.ps(allowed)
  elseif path == "v1/models" then
    status, text = lists.openai(allowed)
  else
    local name = path:sub(#"v1/models/" + 1)
    status, text = lists.openai_one(name, allowed)
    if status == 404 then
      return refuse(404, "model '" .. name .. "' not found", "model_not_found", "model")
    end
  end
  ngx.status = status
  ngx.header.content_length = #text
  ngx.print(text)
end

-- As Ollama answers: clients look there first.
function M.greet()
  if not is_read() then
    return ngx.exit(405)
  end
  ngx.header.content_type = "text/plain; charset=utf-8"
  ngx.header.content_length = #"Ollama is running"
  ngx.print("Ollama is running")
end

-- What an admin calls on one host; of a change's body only the model's name is read.
function M.manage()
  local ctx, var = ngx.ctx, ngx.var
  if not ctx.caller.admin then
    return ngx.exit(403)
  end
  local server = route.named(var.managed)
  if not server or not server.surfaces.ollama then
    return ngx.exit(404)
  end
  if not MANAGED[var.call][ngx.req.get_method()] then
    return ngx.exit(405)
  end
  admit()
  if not is_read() then
    var.model = judged("managed", "allow").model or ""
  end
  route.only(server)
end

M.balance = route.balance

-- Whether the last host that was asked was waited for as long as a host may take.
local function was_waited_for()
  local seconds = string.match(ngx.var.upstream_response_time or "", "([%d.]+)$")
  return seconds and tonumber(seconds) >= read_timeout - 1
end

-- nginx's own pages are HTML, and nothing that it serves or passes on is.
local function explain(ctx, header)
  local status = ngx.status
  if status == 504 and not was_waited_for() then
    -- It could not be reached, or was lost on the way.
    status = 502
    ngx.status = status
  end
  local uri = ngx.var.uri
  if uri == nil or uri == "" then
    uri = errors.address(ngx.var.request)
  end
  local text = errors.body(status, uri, ctx.problem, texts)
  ctx.text = text
  header.content_type = "application/json"
  header.content_length = #text
end

-- An error that a server has said, which speaks OpenAI's API alone: those have no one shape.
local function hear(ctx, header, server)
  local status = ngx.status
  if status == 401 or status == 403 or status == 407 then
    -- To its caller it would look as if their own key was wrong.
    ngx.log(ngx.ERR, server.name, " refuses the gateway's key, or lacks one: it answers ", status)
    ngx.status = 502
    ctx.problem = { text = "'" .. server.host .. "' does not let this gateway in; its operator can tell why" }
    return explain(ctx, header)
  end
  ctx.heard = {}
  header.content_type = "application/json"
  header.content_length = nil
end

function M.head()
  local ctx, header, status = ngx.ctx, ngx.header, ngx.status
  if status >= 400 then
    local server = ctx.route and not ctx.problem and ctx.route.server
    if header.content_type == "text/html" then
      explain(ctx, header)
    elseif server and not server.surfaces.ollama then
      hear(ctx, header, server)
    end
    status = ngx.status
    if status == 429 then
      header["Retry-After"] = header["Retry-After"] or 1
    elseif status >= 502 and status <= 504 then
      header["Retry-After"] = header["Retry-After"] or 5
    end
  end
  if ctx.headers then
    for name, value in pairs(ctx.headers) do
      header[name] = value
    end
  end
  if ctx.usage and not ctx.text then
    usage.head(ctx.usage)
  end
end

-- Of an error no more is kept than anybody would read.
local function translate(ctx)
  local heard, is_last = ctx.heard, ngx.arg[2]
  if #heard < HEARD then
    heard[#heard + 1] = ngx.arg[1]
  end
  ngx.arg[1] = is_last and errors.translated(ngx.status, ngx.var.uri, table.concat(heard)) or ""
end

function M.body()
  local ctx = ngx.ctx
  if ctx.text then
    ngx.arg[1], ngx.arg[2] = ctx.is_said and "" or ctx.text, true
    ctx.is_said = true
  elseif ctx.heard then
    translate(ctx)
  elseif ctx.usage then
    usage.body(ctx.usage)
  end
end

-- The end of every request, however it ended.
function M.finish()
  local ctx = ngx.ctx
  local routed = ctx.route
  if routed then
    route.finish()
    -- As the server lists it: clients can spell a model in ways without end, each a row of its own.
    ngx.var.model = routed.listed or ngx.var.model
  end
  if ctx.usage then
    usage.finish(ctx.usage, ctx.caller.name, routed.listed, routed.server.host)
  end
  if ctx.is_counted then
    callers.leave(ctx.caller)
  end
end

-- What of its headers an answer of a server that is not ours keeps: the others may be about us.
local KEPT = {
  ["connection"] = true, ["content-length"] = true, ["content-type"] = true, ["retry-after"] = true,
  ["transfer-encoding"] = true,
}

function M.relayed()
  for name in pairs(ngx.resp.get_headers(0)) do
    if not KEPT[name] then
      ngx.header[name] = nil
    end
  end
end

local function all_seen()
  local found, is_complete = {}, true
  for place, server in ipairs(route.servers()) do
    local is_well, why = health.seen(server)
    found[place] = { name = server.name, well = is_well, why = why }
    is_complete = is_complete and is_well ~= nil
  end
  return found, is_complete
end

-- For the fleet's own commands: what the last looks at servers have said; waits until there is one.
function M.seen()
  local ends = clock.now() + (tonumber(ngx.var.arg_wait) or 0)
  local found, is_complete = all_seen()
  while not is_complete and clock.now() < ends do
    ngx.sleep(0.1)
    found, is_complete = all_seen()
  end
  ngx.say(cjson.encode(found))
end

-- For the fleet's own commands: how many requests each server has of this gateway.
function M.in_flight()
  local found = {}
  for _, server in ipairs(route.servers()) do
    found[#found + 1] = string.format('"%s":%d', server.name, counts.get("server:" .. server.name))
  end
  ngx.say("{", table.concat(found, ","), "}")
end

-- Another one after each start, and after each reload that nginx took: what does not load leaves the
-- workers of before at work, and `nginx -t` runs no program.
function M.generation()
  ngx.say(generation)
end

return M
