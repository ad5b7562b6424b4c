-- Who has which model, and what the names that clients say stand for.
local health = require "gateway_health"
local names = require "gateway_names"

local STEPS = 8 -- fallbacks of fallbacks that are followed

local M = {}
local servers, declared_aliases, aliases, fallbacks = {}, {}, {}, {}
-- Canonical names to { {server=, model= the real name there, or nil where it lacks it, shown= what
-- clients call it where that is another one}, ... }, and names without tag to the canonical ones.
local models, tags = {}, {}

local function base(canonical)
  return canonical:match("^(.*):[^:/]*$")
end

local function plain_names(declared)
  local plain = {}
  for from, to in pairs(declared or {}) do
    plain[names.plain(from)] = names.plain(to)
  end
  return plain
end

-- Notes that `server` has, or with `model` nil lacks, what is called `canonical`: false where its
-- name is none that a client could say.
local function add(server, canonical, model, shown)
  if not canonical then
    return
  end
  local on = models[canonical]
  if not on then
    on = {}
    models[canonical] = on
    local of = base(canonical)
    tags[of] = tags[of] or {}
    table.insert(tags[of], canonical)
  end
  -- One name may stand in a list twice, spelt differently; what a server has it does not lack.
  if not (on[#on] and on[#on].server == server) then
    on[#on + 1] = { server = server, model = model, shown = shown }
  end
end

-- Notes what one that is not ours has of what it is declared to: it may call that otherwise.
local function add_own(server, plain)
  local listed = {}
  for _, name in ipairs(server.names or {}) do
    listed[plain[name] or name] = true
  end
  for _, name in ipairs(server.models) do
    local real = server.own[name]
    local has = not server.names or listed[plain[real] or real]
    add(server, plain[name], has and real or nil, name)
  end
end

local function add_all(server, plain)
  local own = {}
  for _, name in ipairs(server.models) do
    own[plain[name]] = true
  end
  for _, name in ipairs(server.names or server.models) do
    -- A closed one lists what others with the same disk are asked for.
    if own[plain[name]] or not server.closed then
      add(server, plain[name], name)
    end
  end
  for _, name in ipairs(server.names and server.models or {}) do
    add(server, plain[name], nil)
  end
end

-- Who has what, as of now: what a look saw, and what is declared until the first one.
local function index()
  models, tags = {}, {}
  local plain = setmetatable({}, { __index = function(known, name)
    known[name] = names.plain(name) or false
    return known[name]
  end })
  for _, server in ipairs(servers) do
    local put = server.own and add_own or add_all
    put(server, plain)
  end
end

-- Takes over what workers have found out since.
function M.refresh()
  if health.read() then
    index()
  end
end

-- `D`: gateway_declared, with the fields that gateway_health gives its servers.
function M.init(D)
  servers, declared_aliases = D.servers, D.aliases or {}
  aliases, fallbacks = plain_names(D.aliases), plain_names(D.fallbacks)
  index()
end

-- The model of a name, or the only one of that name with another tag than the one that is left out.
local function tagged(canonical)
  if models[canonical] then
    return canonical
  end
  local others = tags[canonical:match("^(.*):latest$") or 0] or {}
  return #others == 1 and others[1] or nil
end

-- Whether a key that may use `allowed` (nil: all) may use a model: by its name, its name without tag,
-- or an alias.
function M.permits(allowed, canonical)
  if not allowed or allowed[canonical] then
    return true
  end
  local bare = base(canonical) .. ":latest"
  if allowed[bare] and tagged(bare) == canonical then
    return true
  end
  for alias, target in pairs(aliases) do
    if allowed[alias] and tagged(target) == canonical then
      return true
    end
  end
  return false
end

-- The model that a name stands for: it, or the only one of that name with another tag.
local function known(canonical, allowed)
  if models[canonical] and M.permits(allowed, canonical) then
    return canonical
  end
  local of, only = canonical:match("^(.*):latest$"), nil
  for _, other in ipairs(of and tags[of] or {}) do
    if M.permits(allowed, other) then
      if only then
        return nil
      end
      only = other
    end
  end
  return only
end

-- Who of those with a model gets requests now, and whether anybody has it at all. Who is only doubted
-- is asked where there is nobody else.
local function candidates(canonical, surface)
  local well, doubted, exists = {}, {}, false
  for _, one in ipairs(models[canonical] or {}) do
    local server = one.server
    if server.surfaces[surface] then
      exists = true
      if one.model and server.open and server.well then
        local list = server.doubted and doubted or well
        list[#list + 1] = one
      end
    end
  end
  return well[1] and well or doubted, exists
end

local function served(canonical, surface, allowed)
  local exists = false
  for _ = 1, STEPS do
    local on, here = candidates(canonical, surface)
    exists = exists or here
    if on[1] then
      return { model = canonical, on = on }
    end
    canonical = fallbacks[canonical]
    canonical = canonical and known(canonical, allowed)
    if not canonical then
      break
    end
  end
  return nil, exists and "down" or "unknown"
end

-- What a name that a client says stands for, and whether it is an alias; nil where it stands for nothing.
local function resolved(name, allowed)
  local plain = names.plain(name)
  if not plain then
    return nil
  end
  local target = aliases[plain]
  return known(target or plain, allowed), target ~= nil
end

-- The servers of a surface that are asked now.
function M.open_servers(surface)
  M.refresh()
  local found = {}
  for _, server in ipairs(servers) do
    if server.open and server.well and server.surfaces[surface] then
      found[#found + 1] = server
    end
  end
  return found
end

local function any(surface)
  local on = {}
  for place, server in ipairs(M.open_servers(surface)) do
    on[place] = { server = server }
  end
  if not on[1] then
    return nil, "down"
  end
  return { on = on }
end

-- Who can serve the model that a client calls `name` over `surface`, to a key that may use `allowed`,
-- a set of canonical names, or nil: all. { model = canonical, on = { {server=, model=}, ... }, written
-- = `name` if that is this very model's }, or nil and "unknown", "down", or "other": those that have it
-- speak another API. Without `name`: any server.
function M.find(name, surface, allowed)
  M.refresh()
  if not name then
    return any(surface)
  end
  local canonical = resolved(name, allowed)
  if not canonical then
    return nil, "unknown"
  end
  local found, why = served(canonical, surface, allowed)
  if found and names.plain(name) == found.model then
    found.written = name
  elseif why == "unknown" then
    why = "other"
  end
  return found, why
end

-- How servers write the name of a model, and what is shown of it.
local function written(canonical, surface)
  for _, one in ipairs(models[canonical] or {}) do
    if one.model and one.server.surfaces[surface] then
      return one.model, one.shown or one.model
    end
  end
  return canonical, canonical
end

-- Of the model that a client calls `name`: how servers write it, and where that is an alias what is
-- shown of the model itself; or as `find`.
function M.what(name, surface, allowed)
  M.refresh()
  local canonical, is_alias = resolved(name, allowed)
  if not canonical then
    return nil, "unknown"
  end
  local found, why = served(canonical, surface, allowed)
  if not found then
    return nil, why
  end
  local model, shown = written(canonical, surface)
  return model, is_alias and shown or nil
end

-- All that a key can ask for: { {name=, model = how servers write what it is, stands_for = of an alias
-- what is shown of that}, ... }
function M.all(surface, allowed)
  M.refresh()
  local found = {}
  local function offer(name, model, stands_for)
    found[#found + 1] = { name = name, model = model, stands_for = stands_for }
  end
  for canonical in pairs(models) do
    if not aliases[canonical] and M.permits(allowed, canonical) and served(canonical, surface, allowed) then
      local model, shown = written(canonical, surface)
      offer(shown, model)
    end
  end
  for alias in pairs(declared_aliases) do
    local model, stands_for = M.what(alias, surface, allowed)
    if model then
      offer(alias, model, stands_for)
    end
  end
  return found
end

return M
