-- Which server gets a request.
local balancer = require "ngx.balancer"
local counts = require "gateway_counts"

local M = {}
local servers, serving, by_name = {}, {}, {}

function M.init(declared, idle)
  servers, serving, by_name = declared.servers, {}, {}
  for _, server in ipairs(servers) do
    by_name[server.name] = server
    by_name[server.host] = by_name[server.host] or server
    if not idle[server.name] then
      serving[#serving + 1] = server
    end
  end
end

function M.start()
end

function M.servers()
  return servers
end

function M.named(name)
  return by_name[name]
end

function M.find(name)
  local on = {}
  for place, server in ipairs(serving) do
    on[place] = { server = server, model = name }
  end
  if #on == 0 then
    return nil, "down"
  end
  return { model = name, on = on }
end

function M.choose(found)
  local one = found.on[math.random(#found.on)]
  ngx.ctx.route = { server = one.server, model = one.model, found = found, tries = 0 }
end

function M.balance()
  local route = ngx.ctx.route
  local tries = (route.tries or 0) + 1
  route.tries = tries
  if tries > 2 or tries == 2 and route.only then
    return ngx.exit(-3) -- NGX_BUSY: nobody is left, which is a 502
  end
  if tries == 1 then
    counts.add("server:" .. route.server.name, 1)
    if not route.only then
      balancer.set_more_tries(1)
    end
  elseif #route.found.on > 1 then
    local other = route.found.on[1].server
    if other == route.server then
      other = route.found.on[2].server
    end
    counts.add("server:" .. route.server.name, -1)
    route.server = other
    counts.add("server:" .. other.name, 1)
  end
  assert(balancer.set_current_peer(route.server.address, route.server.port))
end

function M.finish()
  local route = ngx.ctx.route
  if route.tries then
    counts.add("server:" .. route.server.name, -1)
  end
end

return M
