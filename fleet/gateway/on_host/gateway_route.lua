-- Which server gets a request.
local balancer = require "ngx.balancer"
local clock = require "gateway_clock"
local counts = require "gateway_counts"
local health = require "gateway_health"
local models = require "gateway_models"
local bit = require "bit"
local band, bxor, lshift, rshift, tobit = bit.band, bit.bxor, bit.lshift, bit.rshift, bit.tobit
local ceil, max, random = math.ceil, math.max, math.random

local OVER_MEAN = 1.25 -- times the mean: what of requests in flight a server may have
local SLOW_START, SMALLEST = 10, 0.1 -- s until a server that is back has its full share; its first one
local BUSY = -3 -- NGX_BUSY: nobody is left to be asked

local M = { find = models.find }
local servers, by_name = {}, {}

-- `declared`: gateway_declared; `idle`: a set of the names of servers that get no requests.
function M.init(declared, idle)
  servers, by_name = declared.servers, {}
  for _, server in ipairs(servers) do
    server.open = not idle[server.name]
    server.seed = ngx.crc32_long(server.name)
    server.counted = "server:" .. server.name
    by_name[server.name] = server
    by_name[server.host] = by_name[server.host] or server
  end
  health.init(servers, declared.calls_from)
  models.init(declared)
end

-- In each worker, at its start.
function M.start()
  math.randomseed(ngx.now() * 1000 + ngx.worker.pid())
  health.start()
  models.refresh()
end

function M.servers()
  return servers
end

-- The server that is called `name`, or the first one of the host that is.
function M.named(name)
  return by_name[name]
end

-- 32 bits of h times m, of a product that a double would round.
local function times(h, m)
  return tobit(band(h, 0xffff) * m + lshift(rshift(h, 16) * m, 16))
end

-- How much a server is meant for a talk: in (0, 1), another one for each pair.
local function score(talk, seed)
  local h = bxor(talk, seed)
  h = times(bxor(h, rshift(h, 16)), 0x45d9f3b)
  h = times(bxor(h, rshift(h, 16)), 0x45d9f3b)
  h = bxor(h, rshift(h, 16))
  return (h % 4294967296 + 0.5) / 4294967296
end

-- The part of its full share that a server gets.
local function share(server, now)
  local age = (now - server.since) / SLOW_START
  return age >= 1 and 1 or max(SMALLEST, age)
end

-- Of several, the one that a talk is meant for among those with room; without one, the least loaded.
local function best(on, talk)
  local now, total, shares = clock.now(), 0, 0
  local load, part = {}, {}
  for place = 1, #on do
    local server = on[place].server
    load[place], part[place] = counts.get(server.counted), share(server, now)
    total, shares = total + load[place], shares + part[place]
  end
  local room = OVER_MEAN * (total + 1) / shares
  local chosen, most, equals = nil, nil, 0
  for place = 1, #on do
    local points
    if not talk then
      points = -(load[place] + 1) / part[place]
    elseif load[place] < ceil(room * part[place]) then
      points = score(talk, on[place].server.seed)
      if part[place] < 1 then
        points = points ^ (1 / part[place])
      end
    end
    if points and (not most or points > most) then
      chosen, most, equals = on[place], points, 1
    elseif points and points == most then
      equals = equals + 1
      chosen = random(equals) == 1 and on[place] or chosen
    end
  end
  return chosen
end

-- The name by which a server is asked. Ollama's knows the one that the client wrote, and answers by it.
local function name_for(found, one)
  return one.server.surfaces.ollama and found.written or one.model
end

local function take(route, one)
  if route.server then
    counts.add(route.server.counted, -1)
  end
  route.server, route.model = one.server, name_for(route.found, one)
  route.listed = one.shown or one.model
  counts.add(one.server.counted, 1)
end

-- Chooses one of what `find` found for a request whose conversation is `talk`, a text or nil: it
-- becomes ngx.ctx.route, with .server, .model (by which it is asked) and .listed (as it lists it).
function M.choose(found, talk)
  local hash = talk and bxor(ngx.crc32_long(talk), ngx.crc32_long(found.model)) or nil
  local route = { found = found, talk = hash, tries = 0 }
  take(route, found.on[2] and best(found.on, hash) or found.on[1])
  ngx.ctx.route = route
end

-- The request goes to this one server, whatever it is.
function M.only(server)
  local route = { found = { on = {} }, tries = 0 }
  take(route, { server = server })
  ngx.ctx.route = route
end

-- Who else can take the request as it is written by now, with its model's name and from the address
-- that it is sent from: at most `most`.
local function others(route, most)
  local found = {}
  for _, one in ipairs(route.found.on) do
    local server = one.server
    local is_other = server ~= route.server and name_for(route.found, one) == route.model
      and server.relayed == route.server.relayed
    if is_other and server.well and not server.doubted then
      found[#found + 1] = one
      if #found == most then
        break
      end
    end
  end
  return found
end

-- Says where nginx sends the request, in the balancer's phase: to one server, and to one other where
-- the first could not be reached, was lost before it answered, or is full.
function M.balance()
  local route = ngx.ctx.route
  route.tries = route.tries + 1
  models.refresh()
  local is_first = route.tries == 1
  if not is_first then
    local _, status = balancer.get_last_failure()
    if status ~= 503 then
      health.lost(route.server)
    end
  end
  if route.tries > 2 then
    -- nginx counts no kept connection that was lost; a request that ends servers meets two at most.
    return ngx.exit(BUSY)
  end
  if not is_first or not route.server.well then
    local rest = others(route)
    if rest[1] then
      take(route, rest[2] and best(rest, route.talk) or rest[1])
    end
  end
  if is_first and others(route, 1)[1] then
    -- Where nobody else is, a 503 goes to the client as it is.
    assert(balancer.set_more_tries(1))
  end
  assert(balancer.set_current_peer(route.server.address, route.server.port))
end

-- Whether the last server that was asked had said nothing when nginx gave up.
local function is_lost()
  local header = string.match(ngx.var.upstream_header_time or "", "([%d.-]+)$")
  local status = string.match(ngx.var.upstream_status or "", "(%d+)$")
  return header == "-" and status == "502"
end

-- At the end of a request.
function M.finish()
  local route = ngx.ctx.route
  if not route then
    return
  end
  counts.add(route.server.counted, -1)
  if route.tries > 0 and ngx.status >= 500 and is_lost() then
    health.lost(route.server)
  end
end

return M
