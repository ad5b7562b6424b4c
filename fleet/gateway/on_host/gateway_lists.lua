-- Answers about models for the whole fleet, as one server would give them.
local cjson = require "cjson.safe"
local clock = require "gateway_clock"
local errors = require "gateway_errors"
local health = require "gateway_health"
local models = require "gateway_models"
local names = require "gateway_names"
local semaphore = require "ngx.semaphore"
local concat, floor, format, max = table.concat, math.floor, string.format, math.max

local PS_LIMIT, PS_KEPT = 1, 1 -- s: what servers are waited for, and how long their answers do for others

local M = {}
local loaded, loaded_at, asking = {}, 0, nil

-- cjson would write / as \/.
local function quoted(text)
  return (cjson.encode(text):gsub("\\/", "/"))
end

-- The second since 1970 of a date like 2026-11-30T23:42:11.5+01:00; 0 of whatever else a server says.
local function seconds(date)
  local text = type(date) == "string" and date or ""
  local y, m, d, H, M_, S, zone = text:match("^(%d+)-(%d+)-(%d+)[Tt](%d+):(%d+):(%d+)%.?%d*(.*)$")
  if not y then
    return 0
  end
  y, m, d = tonumber(y), tonumber(m), tonumber(d)
  if m < 3 then
    y, m = y - 1, m + 12
  end
  local days = 365 * y + floor(y / 4) - floor(y / 100) + floor(y / 400) + floor((153 * m - 457) / 5) + d - 719469
  local sign, hours, minutes = zone:match("^([+-])(%d%d):(%d%d)$")
  local offset = hours and (sign == "-" and -1 or 1) * (hours * 60 + minutes) * 60 or 0
  return days * 86400 + H * 3600 + M_ * 60 + S - offset
end

-- What a server listed of a model, as text and read; nil and {} until the first look.
local function entry(surface, model)
  local text = ngx.shared.servers:get("entry:" .. surface .. ":" .. model)
  return text, text and cjson.decode(text) or {}
end

-- One model as OpenAI's list has it. Of what a server that speaks only this says, its paths stay there.
local function openai_entry(id, model, stands_for)
  local _, native = entry("ollama", model)
  local _, other = entry("openai", model)
  local created = native.modified_at and seconds(native.modified_at) or tonumber(other.created) or 0
  local namespace = model:match("([^/]+)/[^/]*$") or "library"
  local owner = native.name and namespace or type(other.owned_by) == "string" and other.owned_by or namespace
  local text = format(
    '{"id":%s,"object":"model","created":%d,"owned_by":%s%s%s}',
    quoted(id), created, quoted(owner),
    type(other.max_model_len) == "number" and format(',"max_model_len":%d', other.max_model_len) or "",
    stands_for and ',"root":' .. quoted(stands_for) or ""
  )
  return { name = id, date = created, text = text }
end

-- A server's own entry, or for an alias the same with its name and what it stands for.
local function native_entry(name, model, stands_for)
  local text, native = entry("ollama", model)
  if not text then
    text = format('{"name":%s,"model":%s}', quoted(name), quoted(name))
  elseif stands_for then
    local said = { name = name, model = name, parent_model = stands_for }
    for field, value in pairs(said) do
      text = text:gsub('("' .. field .. '"%s*:%s*)"[^"\\]*"', "%1" .. quoted(value):gsub("%%", "%%%%"), 1)
    end
  end
  return { name = name, date = seconds(native.modified_at), text = text }
end

-- The texts of entries, the newest first as servers have them.
local function joined(entries)
  table.sort(entries, function(one, other)
    if one.date ~= other.date then
      return one.date > other.date
    end
    return one.name < other.name
  end)
  for place, one in ipairs(entries) do
    entries[place] = one.text
  end
  return concat(entries, ",")
end

local function all(surface, allowed, made)
  local entries = {}
  for _, item in ipairs(models.all(surface, allowed)) do
    entries[#entries + 1] = made(item.name, item.model, item.stands_for)
  end
  return joined(entries)
end

-- GET /v1/models. `allowed` is a set of canonical names, or nil: all.
function M.openai(allowed)
  return 200, '{"object":"list","data":[' .. all("openai", allowed, openai_entry) .. "]}\n"
end

-- GET /v1/models/<name>: under the name that was asked for, as servers do.
function M.openai_one(name, allowed)
  local model, other = models.what(name, "openai", allowed)
  if model then
    return 200, openai_entry(name, model, other).text .. "\n"
  end
  local status, text = 404, "model '" .. (names.plain(name) or name) .. "' not found"
  if other == "down" then
    status, text = 503, "no host with the model '" .. name .. "' answers now"
  end
  return status, errors.body(status, "/v1/models/", { text = text }, {})
end

-- GET /api/tags.
function M.tags(allowed)
  return 200, '{"models":[' .. all("ollama", allowed, native_entry) .. "]}"
end

-- What each server of the fleet has loaded: { {name=, text=}, ... }, in the servers' order.
local function ask_all()
  local servers, found = models.open_servers("ollama"), {}
  local threads = {}
  for place, server in ipairs(servers) do
    threads[place] = ngx.thread.spawn(health.ask, server, "/api/ps", PS_LIMIT)
  end
  for _, thread in ipairs(threads) do
    -- Who does not answer in time is left out: health tells whether it is well.
    local ok, text = ngx.thread.wait(thread)
    for _, one in ipairs(ok and text and health.entries(text, "ollama") or {}) do
      found[#found + 1] = one
    end
  end
  return found
end

-- The same, asked at most once at a time and a second, however many clients ask.
local function all_loaded()
  while asking do
    local ok, problem = asking:wait(2 * PS_LIMIT)
    if not ok and problem ~= "timeout" then
      error(problem)
    end
  end
  if clock.now() - loaded_at >= PS_KEPT then
    asking = semaphore.new()
    local ok, found = pcall(ask_all)
    local waiting = asking
    asking = nil
    waiting:post(max(1, -waiting:count()))
    assert(ok, found)
    loaded, loaded_at = found, clock.now()
  end
  return loaded
end

-- GET /api/ps: each model once for each server that has it loaded.
function M.ps(allowed)
  local texts = {}
  for _, one in ipairs(all_loaded()) do
    local canonical = names.plain(one.name)
    if canonical and models.permits(allowed, canonical) then
      texts[#texts + 1] = one.text
    end
  end
  return 200, '{"models":[' .. concat(texts, ",") .. "]}"
end

return M
