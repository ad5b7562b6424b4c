-- What each answer took of tokens and time: told by the server where it says so, else estimated.
--
-- `edits` has a stream's server tell it, which it does only where it is asked; the client, who had not
-- asked, sees nothing of it. `begin`, `head`, `body` and `finish` are called in nginx's phases.
local answers = require "gateway_answers"
local clock = require "gateway_clock"
local lines = require "gateway_lines"
local store = require "gateway_store"

local concat, find, format, sub = table.concat, string.find, string.format, string.sub
local floor, max = math.floor, math.max

local KEPT = 1048576 -- bytes of a whole answer that are kept to be read; of a longer one only its end is
local TAIL = 16384
-- Who streams by OpenAI's API says what it took where `stream_options` ask for it.
local ASKED = { ["v1/chat/completions"] = true, ["v1/completions"] = true }
-- Where nothing of a model is known yet: four bytes of English a token, and what a small GPU makes.
local TOKENS_PER_BYTE, TOKENS_PER_SECOND = 0.25, 20
local MEMORY = 4000000 -- bytes of prompts, after which what was learned before counts half
local PACKED = 1.5 -- tokens a part, from which a server is taken to send several at once

local M = {}
local learned = {}

-- Edits of the body that have the server tell what a stream took; none where the client has asked.
function M.edits(call, judged)
  local places = judged.places
  if not ASKED[call] or judged.stream ~= true or not places or places.include_usage and places.include_usage.is_true then
    return {}
  end
  judged.asks_usage = true
  local value, options = places.include_usage, places.stream_options
  if value then
    return { { value[1], value[2], "true" } }
  elseif options then
    return { { options.open, options.open, '{"include_usage":true' .. (options.is_empty and "" or ",") } }
  end
  local text = '{"stream_options":{"include_usage":true}' .. (places.is_empty and "" or ",")
  return { { places.open, places.open, text } }
end

-- Before the request is passed on.
function M.begin(call, judged)
  local dialect = answers.DIALECTS[call]
  if dialect then
    local bytes, blobs = tonumber(ngx.var.content_length or ngx.var.request_length) or 0, judged.blobs or 0
    ngx.ctx.usage = {
      dialect = dialect, asked = judged.asks_usage, seen = answers.new(), began = clock.now(),
      -- What an image takes is told by none of its bytes.
      bytes = bytes - blobs, is_text = blobs == 0, parts = {}, size = 0,
    }
  end
end

local function reads_event(use)
  local dialect, seen = use.dialect, use.seen
  return function(text, is_cut)
    local deltas = seen.deltas
    local o = answers.read_event(dialect, seen, text, is_cut)
    if seen.deltas > deltas then
      use.last = clock.now()
      use.first = use.first or use.last
    end
    -- What was asked for on the client's behalf. null is what some servers write asked or not.
    if use.asked and o and type(o.usage) == "table" then
      local choices = o.choices
      return type(choices) == "table" and next(choices) == nil and "" or answers.without_usage(text)
    end
  end
end

-- In the header filter. `use` is what `begin` has put into ngx.ctx.usage.
function M.head(use)
  local status = ngx.status
  use.is_answered = status >= 200 and status < 300
  if not use.is_answered then
    return
  end
  local kind = ngx.header.content_type or ""
  local is_events = find(kind, "text/event-stream", 1, true) == 1
  if is_events or find(kind, "application/x-ndjson", 1, true) == 1 then
    use.asked = use.asked and is_events
    use.stream = lines.new(reads_event(use), is_events, use.asked)
    if use.asked then
      ngx.header.content_length = nil
    end
  end
end

local function keep(use, text)
  local parts = use.parts
  parts[#parts + 1] = text
  use.size = use.size + #text
  if use.size > KEPT then
    local tail = sub(concat(parts), -TAIL)
    use.parts, use.size, use.is_cut = { tail }, #tail, true
  end
end

-- In the body filter.
function M.body(use)
  if not use.is_answered then
    return
  end
  local text, is_last = ngx.arg[1], ngx.arg[2]
  if use.stream then
    local changed = (text ~= "" or is_last) and lines.feed(use.stream, text, is_last)
    if changed then
      ngx.arg[1] = changed
    end
  elseif text ~= "" then
    keep(use, text)
  end
  if is_last then
    use.is_whole = true
  end
end

-- What is known of a model: tokens and bytes of prompts; tokens, parts and seconds of answers.
local function known(model)
  local one = learned[model]
  if not one then
    one = store.learned(model)
    learned[model] = one
  end
  return one
end

local function learn(use, model, told, elapsed)
  local one, seen = known(model), use.seen
  if one.bytes > MEMORY then
    for name, value in pairs(one) do
      one[name] = value / 2
    end
  end
  if use.is_text then
    one.prompt, one.bytes = one.prompt + told.prompt, one.bytes + use.bytes
  end
  if not use.dialect.no_completion then
    one.completion, one.seconds = one.completion + told.completion, one.seconds + elapsed
    if seen.deltas > 0 then
      one.streamed, one.deltas = one.streamed + told.completion, one.deltas + seen.deltas
    end
  end
  store.learn(model, one)
end

-- What an answer took that nobody told: of one that was cut off, what was made of it until then.
local function estimated(use, model, elapsed)
  local one, seen = known(model), use.seen
  local so_far = seen.so_far
  local prompt = so_far and so_far.prompt
  if not prompt then
    local begun = one.bytes == 0 and seen.begun
    prompt = begun and tonumber(begun.input_tokens)
      or use.bytes * (one.bytes > 0 and one.prompt / one.bytes or TOKENS_PER_BYTE)
  end
  local completion = 0
  if use.stream then
    local packed = one.deltas > 0 and one.streamed / one.deltas or 1
    completion = max(seen.deltas * (packed >= PACKED and packed or 1), so_far and so_far.completion or 0)
  elseif not use.dialect.no_completion then
    completion = elapsed * (one.seconds > 0 and one.completion / one.seconds or TOKENS_PER_SECOND)
  end
  return { prompt = floor(prompt + 0.5), completion = floor(completion + 0.5) }
end

-- Tokens a second of the server's making, or as they came.
local function rate_of(use, told, elapsed)
  local seen = use.seen
  if use.dialect.no_completion or told.completion == 0 then
    return nil
  elseif seen.seconds then
    return told.completion / seen.seconds
  elseif use.stream then
    local took = use.first and use.last - use.first or 0
    return took > 0 and (told.completion - 1) / took or nil
  end
  return elapsed > 0 and told.completion / elapsed or nil
end

-- Whether the server has been at work for this request: it answered, or its client left before.
local function is_made(use)
  if use.is_answered ~= nil then
    return use.is_answered
  end
  -- A time of connecting is there once the last server was connected.
  return ngx.status == 499 and find(ngx.var.upstream_connect_time or "", "%d$") ~= nil
end

-- In the log phase. `caller` is the name of the key, `host` who was asked last.
function M.finish(use, caller, model, host)
  if not is_made(use) then
    return
  end
  local var, elapsed, seen = ngx.var, clock.now() - use.began, use.seen
  if use.size > 0 then
    answers.read_whole(use.dialect, seen, concat(use.parts), use.is_cut or not use.is_whole)
  end
  local told = seen.told
  if seen.failed and seen.deltas == 0 and not told then
    -- A full queue that was found too late for a 503: nothing was made, and nobody was answered.
    ngx.log(ngx.ERR, host, " ended a stream of ", model, " with an error before it had begun")
    return
  end
  local counts = told or estimated(use, model, elapsed)
  -- What is not set is null.
  var.answered_by, var.tokens_estimated = host, told and "false" or "true"
  var.prompt_tokens, var.completion_tokens = counts.prompt, counts.completion
  if counts.cached then
    var.cached_tokens = counts.cached
  end
  if use.first then
    var.first_token = format("%.3f", use.first - use.began)
  end
  if told then
    learn(use, model, told, elapsed)
    local rate = rate_of(use, told, elapsed)
    if rate then
      var.token_rate = format("%.2f", rate)
    end
  end
  store.add(caller, model, host, {
    requests = 1, prompt = counts.prompt, cached = counts.cached or 0, completion = counts.completion,
    estimated = told and 0 or counts.prompt + counts.completion,
  })
end

return M
