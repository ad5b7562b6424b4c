-- Who used how many tokens, kept through reloads, restarts and power cuts.
local clock = require "gateway_clock"
local kept = require "gateway_kept"
local rows = require "gateway_rows"

local date, format, gmatch = os.date, string.format, string.gmatch

local DAY = 86400
local MONTHS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local EVERY = 1 -- seconds until what a worker has counted is known to all of them
local LEARNED = 5 -- seconds after which what is known of a model is told again

local M = {}
local dict = ngx.shared.usage
-- What this worker has counted lately: each number is an operation on a lock else.
local counted, spent, since = {}, {}, nil
local told = {} -- when, by model

local function count(name, counts)
  local added, why = rows.add(since.d, name, counts)
  local tokens = counts.prompt + counts.completion
  for window, period in pairs(added and tokens > 0 and since or {}) do
    added, why = rows.spend(counts.key, window, period, tokens)
    if not added then
      break
    end
  end
  if not added then
    ngx.log(
      ngx.ERR, "usage is not counted in full: ", why, "; lua_shared_dict usage is too small for the keys, ",
      "models and hosts of this gateway; key ", counts.key, ", model ", counts.model, ", host ", counts.host,
      ", requests ", counts.requests, ", prompt ", counts.prompt, ", completion ", counts.completion
    )
  end
end

local function flush()
  local taken = counted
  counted, spent = {}, {}
  for name, counts in pairs(taken) do
    count(name, counts)
  end
end

-- In each worker, as it starts. `state`: a folder of the workers' user.
function M.start(state)
  kept.start(state)
  since = rows.periods(ngx.time())
  assert(ngx.timer.every(EVERY, flush))
end

-- In each worker, as it ends.
function M.stop()
  flush()
  kept.stop()
end

-- Counts an answer. `counts`: numbers by gateway_rows' KINDS, all of them; `estimated` are tokens that
-- no server told.
function M.add(key, model, host, counts)
  local periods = rows.periods(ngx.time())
  if periods ~= since then
    flush()
    since = periods
  end
  local name = rows.name(key, model, host)
  local sum = counted[name]
  if sum then
    for _, kind in ipairs(rows.KINDS) do
      sum[kind] = sum[kind] + counts[kind]
    end
  else
    counts.key, counts.model, counts.host = key, model, host
    counted[name] = counts
  end
  spent[key] = (spent[key] or 0) + counts.prompt + counts.completion
  if ngx.worker.exiting() then
    -- No timer runs any more, and the last stream may take long.
    flush()
  end
end

local function until_next_month(now)
  local at = date("!*t", now)
  local is_leap = at.year % 4 == 0 and (at.year % 100 ~= 0 or at.year % 400 == 0)
  local days = MONTHS[at.month] + (at.month == 2 and is_leap and 1 or 0)
  return (days - at.day + 1) * DAY - now % DAY
end

-- Prompt and completion tokens of a key in this hour ("h"), day ("d") or month ("mo") of UTC, and the
-- seconds until it ends.
function M.spent(key, window)
  local now = ngx.time()
  local periods = rows.periods(now)
  local tokens = rows.spent(key, periods[window]) + (periods == since and spent[key] or 0)
  if window == "mo" then
    return tokens, until_next_month(now)
  end
  local length = window == "h" and 3600 or DAY
  return tokens, length - now % length
end

-- What is known of a model's tokens, as the last worker wrote it.
function M.learned(model)
  local text = dict:get("r" .. model)
  local numbers = {}
  for number in gmatch(text or "", "%S+") do
    numbers[#numbers + 1] = tonumber(number)
  end
  return {
    prompt = numbers[1] or 0, bytes = numbers[2] or 0, completion = numbers[3] or 0,
    seconds = numbers[4] or 0, streamed = numbers[5] or 0, deltas = numbers[6] or 0,
  }
end

-- Only helps guessing: where there is no room for it, it is of no loss.
function M.learn(model, one)
  local now = clock.now()
  if now - (told[model] or -LEARNED) < LEARNED then
    return
  end
  told[model] = now
  local text = format(
    "%.0f %.0f %.0f %.3f %.0f %.0f", one.prompt, one.bytes, one.completion, one.seconds, one.streamed, one.deltas
  )
  dict:safe_set("r" .. model, text)
end

return M
