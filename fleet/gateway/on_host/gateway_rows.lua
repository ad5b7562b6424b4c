-- The counts of tokens in the shared dictionary `usage`: rows of a UTC day by key, model and host, and
-- what a key has spent in a period.
--
-- A number is what was counted since nginx was started, and its base, what the disk had then. A base is
-- set and never added to, so that reading a file twice counts nothing twice. Nothing gives way to
-- anything else (`safe_add`): for what there is no room is said to whoever adds it.
local date = os.date

local CACHED = 10000 -- rows whose places a worker remembers
local SEPARATOR = "\31"
-- Seconds after which a period's count is of no more use.
local LONGEST = { h = 2 * 3600, d = 2 * 86400, mo = 62 * 86400 }

local M = { KINDS = { "requests", "prompt", "cached", "completion", "estimated" } }
local COUNTS = #M.KINDS
local dict = ngx.shared.usage
local rows, cached = {}, 0

-- The periods that `now` is in, by window.
do
  local hour, periods
  function M.periods(now)
    local number = now - now % 3600
    if number ~= hour then
      hour = number
      periods = { h = date("!%Y-%m-%dT%H", now), d = date("!%Y-%m-%d", now), mo = date("!%Y-%m", now) }
    end
    return periods
  end
end

-- Adds to a number of the dictionary; nil and why where there is no room for it.
local function count(name, number, seconds)
  local value, why = dict:incr(name, number)
  if not value and why == "not found" then
    local added
    added, why = dict:safe_add(name, number, seconds or 0)
    if added then
      return number
    elseif why == "exists" then
      return dict:incr(name, number)
    end
  end
  return value, why
end

-- Days are listed by number, as the dictionary cannot be searched without stopping everybody.
local function list_day(day)
  local place, why = count("days", 1)
  if place then
    return dict:safe_add("d" .. place, day)
  end
  return nil, why
end

local function delete_row(day, number, name)
  local prefix = day .. SEPARATOR .. number .. SEPARATOR
  for kind = 1, COUNTS do
    dict:delete(prefix .. kind)
    dict:delete(prefix .. -kind)
  end
  dict:delete("m" .. day .. SEPARATOR .. number)
  dict:delete("i" .. day .. SEPARATOR .. name)
end

-- Makes all that a row will ever need, so that adding to it cannot fail. Returns nil or why not.
local function fill_row(day, number, name)
  local prefix = day .. SEPARATOR .. number .. SEPARATOR
  for kind = 1, COUNTS do
    for _, sign in ipairs { 1, -1 } do
      local added, why = dict:safe_add(prefix .. kind * sign, 0)
      if not added then
        return why
      end
    end
  end
  local added, why = dict:safe_add("m" .. day .. SEPARATOR .. number, name)
  return not added and why or nil
end

local function new_row(day, name)
  local added, why = dict:safe_add("v" .. day, 0)
  if added then
    added, why = list_day(day)
    if not added then
      dict:delete("v" .. day)
      return nil, why
    end
  elseif why ~= "exists" then
    return nil, why
  end
  local number
  number, why = count("n" .. day, 1)
  why = not number and why or fill_row(day, number, name)
  if not why then
    added, why = dict:safe_add("i" .. day .. SEPARATOR .. name, number)
    if added then
      return number
    elseif why == "exists" then
      -- Another worker was faster; this one stays empty and is never written.
      return dict:get("i" .. day .. SEPARATOR .. name)
    end
  end
  if number then
    delete_row(day, number, name)
  end
  return nil, why
end

-- Where the counts of a row are in the dictionary, by kind; nil and why where there is no room for it.
local function row_of(day, name)
  local whole = day .. SEPARATOR .. name
  local row = rows[whole]
  if row then
    return row
  end
  local number, why = dict:get("i" .. whole), nil
  if not number then
    number, why = new_row(day, name)
  end
  if not number then
    return nil, why
  end
  row = { prefix = day .. SEPARATOR .. number .. SEPARATOR, version = "v" .. day }
  for kind = 1, COUNTS do
    row[kind] = row.prefix .. kind
  end
  if cached >= CACHED then
    rows, cached = {}, 0
  end
  rows[whole], cached = row, cached + 1
  return row
end

local function add(day, name, counts)
  local row, why = row_of(day, name)
  if not row then
    return nil, why
  end
  for kind = 1, COUNTS do
    local number = counts[M.KINDS[kind]]
    if number and number > 0 then
      local value
      value, why = dict:incr(row[kind], number)
      if not value then
        return nil, why
      end
    end
  end
  return dict:incr(row.version, 1)
end

-- The name of a row.
function M.name(key, model, host)
  return key .. SEPARATOR .. model .. SEPARATOR .. host
end

-- Adds `counts` (numbers by KINDS) to a row. Returns nil and why where there is no room for it.
function M.add(day, name, counts)
  local added, why = add(day, name, counts)
  if why == "not found" then
    -- The day had been put away: the clock was set back to it.
    rows, cached = {}, 0
    added, why = add(day, name, counts)
  end
  return added, why
end

-- Sets what a row had before nginx was started. Returns nil or why not.
function M.set_base(day, name, counts)
  -- Where it was may have been put away.
  rows[day .. SEPARATOR .. name] = nil
  local row, why = row_of(day, name)
  if not row then
    return why
  end
  for kind = 1, COUNTS do
    dict:set(row.prefix .. -kind, counts[M.KINDS[kind]])
  end
end

-- Calls `found(name, numbers)` for each row of a day that has counted something.
function M.each(day, found)
  for number = 1, dict:get("n" .. day) or 0 do
    local name = dict:get("m" .. day .. SEPARATOR .. number)
    local prefix = day .. SEPARATOR .. number .. SEPARATOR
    local numbers, is_empty = {}, true
    for kind = 1, name and COUNTS or 0 do
      local counted = (dict:get(prefix .. kind) or 0) + (dict:get(prefix .. -kind) or 0)
      numbers[kind], is_empty = counted, is_empty and counted == 0
    end
    if not is_empty then
      found(name, numbers)
    end
  end
end

-- Counts tokens of a key in a period. Returns nil and why where there is no room for it.
function M.spend(key, window, period, tokens)
  return count("s" .. key .. SEPARATOR .. period, tokens, LONGEST[window])
end

-- Sets what keys had spent before nginx was started: `sums` by key. Returns nil or why not.
function M.set_spent(window, period, sums)
  for key, tokens in pairs(sums) do
    local set, why = dict:safe_set("S" .. key .. SEPARATOR .. period, tokens, LONGEST[window])
    if not set then
      return why
    end
  end
end

function M.spent(key, period)
  local name = key .. SEPARATOR .. period
  return (dict:get("s" .. name) or 0) + (dict:get("S" .. name) or 0)
end

-- Whether the base of a day or a month has been set.
function M.is_loaded(period)
  return dict:get("l" .. period)
end

-- Returns nil or why not.
function M.set_loaded(period)
  local set, why = dict:safe_set("l" .. period, true)
  return not set and why or nil
end

-- The number of the last change of a day, where it is not on the disk; else nil.
function M.unsaved(day)
  local version = dict:get("v" .. day) or 0
  return version ~= (dict:get("w" .. day) or 0) and version or nil
end

function M.set_saved(day, version)
  dict:set("w" .. day, version)
end

-- Calls `found(day, place)` for each day that has rows here.
function M.days(found)
  for place = 1, dict:get("days") or 0 do
    local day = dict:get("d" .. place)
    if day then
      found(day, place)
    end
  end
end

-- Takes a day out of the dictionary. Its numbers are not given again: others may remember them.
function M.put_away(day, place)
  for number = 1, dict:get("n" .. day) or 0 do
    delete_row(day, number, dict:get("m" .. day .. SEPARATOR .. number) or "")
  end
  for _, of in ipairs { "v", "w", "l" } do
    dict:delete(of .. day)
  end
  dict:delete("d" .. place)
end

return M
