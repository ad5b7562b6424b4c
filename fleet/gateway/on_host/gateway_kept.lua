-- A file for each UTC day of what was counted: written within seconds, read as nginx starts.
local disk = require "gateway_disk"
local json = require "cjson.safe"
local rows = require "gateway_rows"

local concat, find, format, match = table.concat, string.find, string.format, string.match
local date = os.date

local SCHEMA = "llm-fleet-usage/1"
local EVERY = 3 -- seconds between two looks for what is not on the disk yet
local KEPT, FORGOTTEN = 400, 430 -- days
local PAUSE = 500 -- rows between pauses
local DAY = 86400

local M = {}
local folder
local is_busy, lock, told_at = false, nil, nil

local function complain(why)
  -- A disk that is full stays so for long.
  if why and (not told_at or ngx.time() - told_at >= 60 or ngx.time() < told_at) then
    told_at = ngx.time()
    ngx.log(ngx.ERR, "usage is not kept on the disk: ", why)
  end
end

local function is_row(row)
  if type(row) ~= "table" then
    return false
  end
  for _, name in ipairs { "key", "model", "host" } do
    if type(row[name]) ~= "string" or find(row[name], "%c") then
      return false
    end
  end
  for _, kind in ipairs(rows.KINDS) do
    if type(row[kind]) ~= "number" or row[kind] < 0 then
      return false
    end
  end
  return true
end

local function are_hours(hours)
  for hour, tokens in pairs(hours) do
    if type(hour) ~= "string" or not find(hour, "^%d%d$") or type(tokens) ~= "table" then
      return false
    end
    for key, number in pairs(tokens) do
      if type(key) ~= "string" or type(number) ~= "number" or number < 0 then
        return false
      end
    end
  end
  return true
end

-- What a file says, or nil where it is not whole.
local function checked(text)
  local kept = json.decode(text)
  if type(kept) ~= "table" or kept.schema ~= SCHEMA or type(kept.rows) ~= "table" or type(kept.hours) ~= "table" then
    return nil
  end
  for _, row in ipairs(kept.rows) do
    if not is_row(row) then
      return nil
    end
  end
  return are_hours(kept.hours) and kept or nil
end

-- What is kept of a day; {} where nothing is. nil and why where it cannot be told.
local function read(day)
  local path = folder .. "/" .. day .. ".json"
  local file, why, code = io.open(path, "r")
  if not file then
    if code == 2 then
      return { rows = {}, hours = {} }
    end
    return nil, why
  end
  local text
  text, why = file:read("*a")
  file:close()
  if not text then
    return nil, path .. ": " .. why
  end
  local kept = checked(text)
  if kept then
    return kept
  end
  local aside = path .. ".damaged-" .. ngx.time()
  local moved
  moved, why = os.rename(path, aside)
  if not moved then
    return nil, why
  end
  ngx.log(ngx.ERR, "usage of ", day, " is damaged, it is put aside as ", aside, " and counted from zero")
  return { rows = {}, hours = {} }
end

local function add_tokens(sums, kept)
  for _, row in ipairs(kept.rows) do
    sums[row.key] = (sums[row.key] or 0) + row.prompt + row.completion
  end
end

-- The base of a month: all its days as they were when the first of them is needed.
local function load_month(day)
  local month = match(day, "^%d+-%d+")
  if rows.is_loaded(month) then
    return nil
  end
  local sums = {}
  for number = 1, 31 do
    local kept, why = read(format("%s-%02d", month, number))
    if not kept then
      return why
    end
    add_tokens(sums, kept)
  end
  return rows.set_spent("mo", month, sums) or rows.set_loaded(month)
end

-- Sets the base of a day, before any of it is written. Returns nil or why not.
local function load(day)
  if rows.is_loaded(day) then
    return nil
  end
  local why = load_month(day)
  if why then
    return why
  end
  local kept
  kept, why = read(day)
  if not kept then
    return why
  end
  for _, row in ipairs(kept.rows) do
    why = rows.set_base(day, rows.name(row.key, row.model, row.host), row)
    if why then
      return why
    end
  end
  local sums = {}
  add_tokens(sums, kept)
  why = rows.set_spent("d", day, sums)
  for hour, tokens in pairs(kept.hours) do
    why = why or rows.set_spent("h", day .. "T" .. hour, tokens)
  end
  return why or rows.set_loaded(day)
end

local function row_text(key, model, host, numbers)
  local counts = {}
  for kind, name in ipairs(rows.KINDS) do
    counts[kind] = format('"%s":%.0f', name, numbers[kind])
  end
  return format(
    '{"key":%s,"model":%s,"host":%s,%s}', json.encode(key), json.encode(model), json.encode(host), concat(counts, ",")
  )
end

-- The tokens of this hour by key, where the day is today.
local function hour_text(day, keys)
  local period = rows.periods(ngx.time()).h
  local of_day, hour = match(period, "^(.*)T(.*)$")
  if of_day ~= day then
    return "{}"
  end
  local parts = {}
  for key in pairs(keys) do
    local tokens = rows.spent(key, period)
    if tokens > 0 then
      parts[#parts + 1] = format("%s:%.0f", json.encode(key), tokens)
    end
  end
  return format('{"%s":{%s}}', hour, concat(parts, ","))
end

-- The text of a day's file. `pause` lets others have their turn.
local function text_of(day, pause)
  local parts, keys = {}, {}
  rows.each(day, function(name, numbers)
    local key, model, host = match(name, "^(.*)\31(.*)\31(.*)$")
    keys[key] = true
    parts[#parts + 1] = row_text(key, model, host, numbers)
    if #parts % PAUSE == 0 then
      pause()
    end
  end)
  return format(
    '{"schema":"%s","day":"%s","hours":%s,"rows":[\n%s\n]}\n', SCHEMA, day, hour_text(day, keys), concat(parts, ",\n")
  )
end

local function save(day, write, pause)
  local version = rows.unsaved(day)
  if not version then
    return nil
  end
  local why = load(day) or write(day .. ".json", text_of(day, pause))
  if not why then
    rows.set_saved(day, version)
  end
  return why
end

-- Takes a day out of the dictionary that no clock shows any more, once it is on the disk.
local function put_away(day, place)
  local now = ngx.time()
  for shift = -1, 1 do
    if date("!%Y-%m-%d", now + shift * DAY) == day then
      return
    end
  end
  rows.put_away(day, place)
  if date("!%Y-%m-%d", now - 2 * DAY) ~= day then
    return -- the clock has jumped: which files are old is not known
  end
  for back = KEPT + 1, FORGOTTEN do
    os.remove(folder .. "/" .. date("!%Y-%m-%d", now - back * DAY) .. ".json")
  end
end

local function save_all(write, pause)
  local why
  rows.days(function(day, place)
    local failed = save(day, write, pause)
    why = why or failed
    -- While it was written, more may have been counted.
    if not failed and not rows.unsaved(day) then
      put_away(day, place)
    end
  end)
  return why
end

-- Does `work` as the only one of all workers that touches the files. Returns nil or why not.
local function alone(wait, work)
  local why = disk.folder(folder)
  if why then
    return why
  end
  lock, why = disk.lock(folder .. "/lock", wait)
  if not lock then
    -- Another one is at it.
    return why
  end
  local done, result = pcall(work)
  disk.unlock(lock)
  lock = nil
  if not done then
    error(result, 0)
  end
  return result
end

local function in_thread(name, text)
  local ran, why = ngx.run_worker_thread("store", "gateway_disk", "write", folder, name, text)
  return not ran and "no thread: " .. tostring(why) or why
end

local function here(name, text)
  return disk.write(folder, name, text)
end

local function look(premature)
  if premature or is_busy then
    return
  end
  is_busy = true
  local done, why = pcall(alone, false, function()
    return load(rows.periods(ngx.time()).d) or save_all(in_thread, function()
      ngx.sleep(0.001)
    end)
  end)
  is_busy = false
  complain(why)
  if not done then
    error(why, 0)
  end
end

-- In each worker, as it starts. `state`: a folder of the workers' user.
function M.start(state)
  folder = state .. "/usage"
  local today = rows.periods(ngx.time()).d
  if not rows.is_loaded(today) then
    -- Whoever is first: none answers a request before it is known what was spent. At a reload it is
    -- known, and nobody waits for a disk.
    complain(alone(true, function()
      return load(today)
    end))
  end
  if ngx.worker.id() == 0 then
    assert(ngx.timer.every(EVERY, look))
  end
end

-- In each worker, as it ends: what the others count later, they write.
function M.stop()
  local function work()
    return save_all(here, function() end)
  end
  if lock then
    -- This worker was at it; its thread has come to its end.
    complain(work())
  else
    complain(alone(true, work))
  end
end

return M
