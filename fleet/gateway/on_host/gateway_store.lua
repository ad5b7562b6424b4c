-- Who used how many tokens, kept through reloads, restarts and power cuts.
local kept = require "gateway_kept"
local rows = require "gateway_rows"

local date, format, gmatch = os.date, string.format, string.gmatch

local DAY = 86400
local MONTHS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

-- `start(state)` in each worker as it starts, `stop()` as it ends.
local M = { start = kept.start, stop = kept.stop }
local dict = ngx.shared.usage

-- Counts an answer. `counts`: numbers by gateway_rows' KINDS; `estimated` are tokens no server told.
function M.add(key, model, host, counts)
  local periods = rows.periods(ngx.time())
  local added, why = rows.add(periods.d, rows.name(key, model, host), counts)
  local tokens = (counts.prompt or 0) + (counts.completion or 0)
  if added and tokens > 0 then
    for window, period in pairs(periods) do
      added, why = rows.spend(key, window, period, tokens)
      if not added then
        break
      end
    end
  end
  if not added then
    ngx.log(
      ngx.ERR, "usage is not counted in full: ", why, "; lua_shared_dict usage is too small for the keys, ",
      "models and hosts of this gateway; key ", key, ", model ", model, ", host ", host, ", requests ",
      counts.requests or 0, ", prompt ", counts.prompt or 0, ", completion ", counts.completion or 0
    )
  end
end

local function end_of_month(now)
  local at = date("!*t", now)
  local is_leap = at.year % 4 == 0 and (at.year % 100 ~= 0 or at.year % 400 == 0)
  local days = MONTHS[at.month] + (at.month == 2 and is_leap and 1 or 0)
  return now + (days - at.day + 1) * DAY - now % DAY
end

local month, month_ends

local function until_next_month(now, this)
  if this ~= month then
    month, month_ends = this, end_of_month(now)
  end
  return month_ends - now
end

-- Prompt and completion tokens of a key in this hour ("h"), day ("d") or month ("mo") of UTC, and the
-- seconds until it ends.
function M.spent(key, window)
  local now = ngx.time()
  local period = rows.periods(now)[window]
  local tokens = rows.spent(key, period)
  if window == "mo" then
    return tokens, until_next_month(now, period)
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
  local text = format(
    "%.0f %.0f %.0f %.3f %.0f %.0f", one.prompt, one.bytes, one.completion, one.seconds, one.streamed, one.deltas
  )
  dict:safe_set("r" .. model, text)
end

return M
