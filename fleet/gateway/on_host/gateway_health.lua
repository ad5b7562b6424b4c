-- Whether each server answers and which models it has: worker 0 looks, and all workers know.
local cjson = require "cjson.safe"
local clock = require "gateway_clock"
local max = math.max

-- From one look at a server to the next, and what a look may take: who is lost just after one is
-- known to be down well within 2 s. One late answer may be a busy host's.
local PERIOD, LIMIT, CONNECT, LATE = 0.8, 0.75, 0.37, 2 -- s, s, s, looks
local SLICES, AT_ONCE = 16, 64 -- in which a turn is made; looks that may all begin at nginx's start
local HELD_UP = 0.2 -- s after its time: this worker was busy, and the server may have answered
local READ = 0.05 -- s: no worker reads more often what changed
local LARGEST = 8388608 -- bytes of a list
local PATHS = { ollama = "/api/tags", openai = "/v1/models" }
-- One that is not ours, maybe far away, is looked at less often and waited for longer.
local RELAYED_PERIOD, RELAYED_LIMIT = 5, 5 -- s, s

local M = {}
local servers, from, version, read_at = {}, nil, nil, 0
local lists = {} -- id of a server to the last list that this worker read of it
local shared = ngx.shared.servers

-- The dict has of each server, by its id: "up" the second since which it answers (0: all the time;
-- -1: it does not), "lost" the second in which a request failed there, until a good look, "names" its
-- models as JSON, "look" while somebody looks, "in" if it gets requests. Of each model, by its name and
-- the surface that listed it, "entry" is the text that a list had of it.
local function set(kind, id, value)
  -- What is known of the others does not give way.
  local ok, problem = shared:safe_set(kind .. ":" .. id, value)
  if not ok then
    ngx.log(ngx.ERR, "no room for '", kind, "' of ", id, " in the dict of servers: ", problem)
  end
end

local function get(kind, id)
  return shared:get(kind .. ":" .. id)
end

local function changed()
  shared:incr("version", 1, 0)
end

-- `list`: the declared servers, each with `open` if it gets requests; `address`: where to call from,
-- or nil. Each server gets `well` (it answered), `doubted` (a request failed there since), `since` (a
-- second) and `names` (nil until the first look, and where no list tells them).
function M.init(list, address)
  servers, from = list, address
  for _, server in ipairs(servers) do
    server.id = server.name .. "|" .. server.address .. "|" .. (server.port or "")
    server.well, server.doubted, server.since, server.late = true, false, 0, 0
    server.surface = server.surfaces.ollama and "ollama" or "openai"
    server.limit, server.looked = server.relayed and RELAYED_LIMIT or LIMIT, -RELAYED_PERIOD
  end
end

-- Takes over what changed in the dict: whether models did.
function M.read()
  local now = clock.now()
  if now - read_at < READ then
    return false
  end
  read_at = now
  local newest = shared:get("version")
  if newest == version then
    return false
  end
  version = newest
  local models = false
  for _, server in ipairs(servers) do
    local up, names = get("up", server.id), get("names", server.id)
    server.well, server.since = up ~= -1, max(up or 0, 0)
    server.doubted = get("lost", server.id) ~= nil
    if names ~= server.names_text then
      server.names_text, server.names, models = names, cjson.decode(names), true
    end
  end
  return models
end

-- The objects in the array of a list {"...": [{...}, {...}]}, as they are written.
local function objects(text)
  local found, depth, at, first = {}, 0, 1, nil
  while true do
    at = text:find('[]"{}[]', at)
    if not at then
      return found
    end
    local byte = text:byte(at)
    if byte == 34 then
      repeat -- to the quote that ends the string
        at = text:find('[\\"]', at + 1) or #text
        local escapes = text:byte(at) == 92
        at = escapes and at + 1 or at
      until not escapes
    elseif byte == 123 or byte == 91 then
      depth = depth + 1
      first = depth == 3 and at or first
    else
      depth = depth - 1
      if depth == 2 and byte == 125 then
        found[#found + 1] = text:sub(first, at)
      end
    end
    at = at + 1
  end
end

-- What a list has: { {name=, text=}, ... }, or nil and why it is none.
function M.entries(text, surface)
  local whole = cjson.decode(text)
  local field = surface == "ollama" and "models" or "data"
  -- Without a model, servers say null or [].
  if type(whole) ~= "table" or whole[field] == nil then
    return nil, "no list of models in its answer"
  end
  local found = {}
  for _, object in ipairs(objects(text)) do
    local entry = cjson.decode(object)
    local name = entry and (surface == "ollama" and entry.name or entry.id)
    if type(name) == "string" then
      found[#found + 1] = { name = name, text = object }
    end
  end
  return found
end

-- A connection to a server; one lost packet makes no host unreachable.
local function connection(server)
  local problem
  for _ = 1, 2 do
    -- nginx reckons from when it last looked at the clock, before all that it has done since.
    ngx.update_time()
    local socket = ngx.socket.tcp()
    socket:settimeout(CONNECT * 1000)
    if from then
      assert(socket:bind(from))
    end
    local ok
    if server.port then
      ok, problem = socket:connect(server.address, server.port)
    else
      ok, problem = socket:connect(server.address)
    end
    if ok or problem ~= "timeout" then
      return ok and socket, problem
    end
  end
  return nil, "no connection within " .. 2 * CONNECT .. " s"
end

-- All that a server says until it closes, or nil, why, and whether it is only late.
local function received(socket, ends)
  local pieces, size = {}, 0
  while size <= LARGEST do
    socket:settimeout(max(1, (ends - clock.now()) * 1000))
    local piece, problem = socket:receiveany(65536)
    if not piece then
      if problem == "closed" then
        return table.concat(pieces)
      end
      return nil, problem == "timeout" and "no answer in time" or problem, problem == "timeout"
    end
    pieces[#pieces + 1], size = piece, size + #piece
  end
  return nil, "an answer of more than " .. LARGEST .. " bytes", true
end

-- GET of `path` within `limit` seconds: the body, or nil, why, and whether the server may be well.
-- HTTP/1.0 and a connection of its own: the answer ends where the server closes, and a host that is
-- gone is not taken for a slow one.
function M.ask(server, path, limit)
  local ends = clock.now() + limit
  local socket, problem = connection(server)
  if not socket then
    return nil, problem, false
  end
  local _, unsent = socket:send("GET " .. path .. " HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")
  local text, why, late
  if not unsent then
    text, why, late = received(socket, ends)
  end
  socket:close()
  if not text or text == "" then
    return nil, why or unsent or "it hung up", late or false
  end
  local status, head, body = text:match("^HTTP/%d%.%d (%d%d%d)[^\r\n]*(\r\n.-)\r\n\r\n(.*)$")
  if status ~= "200" then
    return nil, "it answers " .. path .. " with " .. (status and "status " .. status or "no HTTP"), true
  end
  local length = head:lower():match("\r\ncontent%-length:%s*(%d+)")
  if length and #body < tonumber(length) then
    return nil, "it hung up within its answer", false
  end
  return body
end

-- Publishes what a list of `server` says, unless this worker has just read the same one.
local function learn(server, surface, text)
  if lists[server.id] == text and get("names", server.id) then
    return true
  end
  local entries, problem = M.entries(text, surface)
  if not entries then
    return nil, problem
  end
  local quoted = {}
  for place, entry in ipairs(entries) do
    quoted[place] = cjson.encode(entry.name)
    set("entry", surface .. ":" .. entry.name, entry.text)
  end
  local names = "[" .. table.concat(quoted, ",") .. "]"
  if names ~= get("names", server.id) then
    set("names", server.id, names)
    changed()
  end
  lists[server.id] = text
  return true
end

local function answered(server, began)
  local up, lost = get("up", server.id), get("lost", server.id)
  server.late = 0
  if lost and lost > began then
    return -- this look says nothing about what happened after it began
  end
  -- A server that is asked again at once was never gone: a kept connection had ended.
  local is_back = up == -1 or lost and clock.now() - lost > PERIOD
  if is_back or not up then
    set("up", server.id, is_back and clock.now() or 0)
  end
  if up == -1 then
    ngx.log(ngx.ERR, server.name, " answers again and gets requests")
  end
  if lost then
    shared:delete("lost:" .. server.id)
  end
  if is_back or lost then
    changed()
  end
end

local function failed(server, why, late)
  server.late = late and server.late + 1 or LATE
  if server.late < LATE then
    return
  end
  if get("why", server.id) ~= why then
    set("why", server.id, why)
  end
  if get("up", server.id) == -1 then
    return
  end
  set("up", server.id, -1)
  changed()
  ngx.log(ngx.ERR, server.name, " gets no requests until it answers: ", why)
end

-- Looks at a server, unless somebody does.
local function look(server)
  if not shared:add("look:" .. server.id, true, 2 * server.limit) then
    return
  end
  local began = clock.now()
  server.looked = began
  local text, why, late = M.ask(server, server.health or PATHS[server.surface], server.limit)
  if text and server.is_listed ~= false then
    local ok, problem = learn(server, server.surface, text)
    text, why, late = ok, problem, true
  elseif not text and not late and server.relayed then
    why = "no connection to it, or its certificate is refused: nginx's error.log says which"
  end
  if text then
    answered(server, began)
  else
    failed(server, why, late or clock.now() - began > server.limit + HELD_UP)
  end
  shared:delete("look:" .. server.id)
end

-- A request to `server` failed before it had an answer: nobody asks it before a good look.
function M.lost(server)
  set("lost", server.id, clock.now())
  changed()
  server.doubted = true
  -- Where there is no room for one more timer, the next turn is not far.
  local ok, problem = ngx.timer.at(0, function(is_ending)
    if not is_ending then
      look(server)
    end
  end)
  if not ok then
    ngx.log(ngx.ERR, "no look at ", server.name, " now: ", problem)
  end
end

-- Looks at every `step`th server from `first` on: a fleet is not asked all at once.
local function looks(is_ending, first, step)
  if is_ending then
    return
  end
  for place = first, #servers, step do
    local server = servers[place]
    if not server.relayed or clock.now() - server.looked >= RELAYED_PERIOD then
      ngx.thread.spawn(look, server)
    end
  end
end

-- What the last look at a server said: whether it is well (nil: there was none yet), and why not.
function M.seen(server)
  local up = get("up", server.id)
  return up and up ~= -1, up == -1 and get("why", server.id) or nil
end

-- But a small one at nginx's start, when nothing is known of it.
local function first_looks(is_ending)
  for _, server in ipairs(is_ending and {} or servers) do
    if not get("up", server.id) then
      ngx.thread.spawn(look, server)
    end
  end
end

local function later(seconds, run, ...)
  assert(ngx.timer.at(seconds, run, ...))
end

-- Who gets requests since this start of the workers: its share grows slowly, and what a look said
-- while it was out is forgotten. At nginx's own start all begin alike.
local function let_in()
  local is_first = shared:add("begun", true)
  for _, server in ipairs(servers) do
    if not server.open then
      shared:delete("in:" .. server.id)
    elseif shared:add("in:" .. server.id, true) and not is_first then
      set("up", server.id, clock.now())
      shared:delete("lost:" .. server.id)
    end
  end
  changed()
end

local function from_now_on(is_ending, first, step)
  if not is_ending then
    assert(ngx.timer.every(PERIOD, looks, first, step))
    looks(false, first, step)
  end
end

-- In each worker, at its start.
function M.start()
  if ngx.worker.id() ~= 0 then
    return
  end
  let_in()
  if #servers <= AT_ONCE then
    later(0, first_looks)
  end
  local step = math.min(SLICES, #servers)
  for first = 1, step do
    later(PERIOD * first / step, from_now_on, first, step)
  end
end

return M
