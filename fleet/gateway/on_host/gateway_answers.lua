-- What servers say of an answer's tokens, in each dialect, whole or streamed.
--
-- What a model writes may look like usage, and arguments of tools are JSON of its own making: only the
-- members of the server's own objects are looked at, by their places in the JSON.
local json = require "cjson.safe"

local byte, find, match, reverse, sub = string.byte, string.find, string.match, string.reverse, string.sub
local floor = math.floor

local SMALL = 32768 -- bytes of an answer that is read as a whole at once
local TAIL = 16384 -- bytes at the end of a larger one, where servers put what they counted

local QUOTE, OPEN, CLOSE = byte('"'), byte("{"), byte("}")
local OPEN_LIST, CLOSE_LIST, COMMA, COLON = byte("["), byte("]"), byte(","), byte(":")

local M = {}

-- A count of tokens as a server wrote it, or nil.
local function number(value)
  return type(value) == "number" and value >= 0 and value < 1e12 and floor(value) or nil
end

local function object(value)
  return type(value) == "table" and value or nil
end

local function said(value)
  return type(value) == "string" and value ~= ""
end

-- Where in `reversed` the text that is closed at `at` is opened; nil where that is cut off.
local function opened(reversed, at)
  while true do
    local quote = find(reversed, '"', at + 1, true)
    if not quote then
      return nil
    end
    local _, last = find(reversed, "^\\*", quote + 1)
    if (last - quote) % 2 == 0 then
      return quote
    end
    at = quote
  end
end

-- Calls `found(key, begin, from, to, after_comma)` for each member of the objects at `level` (1: the
-- outermost), the last one first, until it returns true. Reads from the end, so the beginning may be
-- missing. The member begins at `begin`; its value is from..to.
function M.members(text, level, found)
  local reversed, size = reverse(text), #text
  local depth, at, stop, colon = 0, 1, nil, nil
  while true do
    at = find(reversed, depth == level and '["{}%[%],:]' or '["{}%[%]]', at)
    if not at then
      return
    end
    local what, place = byte(reversed, at), size + 1 - at
    if what == QUOTE then
      at = opened(reversed, at)
      if not at then
        return
      end
    elseif what == CLOSE or what == CLOSE_LIST then
      depth = depth + 1
      if depth == level then
        stop, colon = place - 1, nil
      end
    elseif what == COLON then
      colon = place
    else
      if depth == level then
        local key = colon and match(sub(text, place + 1, colon - 1), '^%s*"(.*)"%s*$')
        if key and found(key, place + 1, colon + 1, stop, what == COMMA) then
          return
        end
        stop, colon = place - 1, nil
      end
      if what == OPEN or what == OPEN_LIST then
        depth = depth - 1
        if depth <= 0 then
          return
        end
      end
    end
    at = at + 1
  end
end

-- The members called `wanted` (a set) of what `text` ends with, as an object.
local function last_members(text, level, wanted)
  local result, left = {}, 0
  for _ in pairs(wanted) do
    left = left + 1
  end
  M.members(text, level, function(key, _, from, to)
    if wanted[key] and result[key] == nil then
      result[key] = json.decode(sub(text, from, to))
      left = left - 1
    end
    return left == 0
  end)
  return next(result) ~= nil and result or nil
end

-- `text` without its outermost member `usage`, if that is an object; nil where there is none.
function M.without_usage(text)
  local cut
  M.members(text, 1, function(key, begin, from, to, after_comma)
    if key ~= "usage" then
      return false
    end
    local value = match(sub(text, from, to), "^(%s*{.*})%s*$")
    if value then
      to = from + #value - 1
      if after_comma then
        cut = sub(text, 1, begin - 2) .. sub(text, to + 1)
      else
        cut = sub(text, 1, begin - 1) .. match(text, "^,?(.*)$", to + 1)
      end
    end
    return true
  end)
  return cut
end

-- Each dialect reads an object of the server's into `seen`:
--   told = {prompt, cached, completion}: the server's own count of the whole answer
--   so_far = the same of a stream that goes on
--   deltas = how many parts of the answer came; seconds = how long the server made it, where it says so
--   failed = it says within the answer that there is none, as the status was sent already

local NATIVE = { prompt_eval_count = true, prompt_eval_cached_count = true, eval_count = true, eval_duration = true }

local function native_counts(seen, o)
  seen.told = {
    prompt = number(o.prompt_eval_count) or 0,
    cached = number(o.prompt_eval_cached_count),
    completion = number(o.eval_count) or 0,
  }
  local nanoseconds = number(o.eval_duration)
  seen.seconds = nanoseconds and nanoseconds > 0 and nanoseconds / 1e9 or nil
end

local native = {
  wanted = NATIVE,
  -- Patterns of what an event has that counts, and of what one has that is a part of the answer.
  counted = '"done"%s*:%s*true',
  parts = { '"content"%s*:%s*"[^"]', '"response"%s*:%s*"[^"]', '"thinking"%s*:%s*"[^"]' },
  whole = function(seen, o)
    -- One that only loads a model has counted nothing, and says so by being done.
    if number(o.prompt_eval_count) or number(o.eval_count) or o.done == true then
      native_counts(seen, o)
    end
  end,
  event = function(seen, o)
    local message = object(o.message) or o
    if said(message.content) or said(message.thinking) or said(o.response) or object(message.tool_calls) then
      seen.deltas = seen.deltas + 1
    end
    if o.done == true then
      native_counts(seen, o)
    end
  end,
}

local native_embed = {
  wanted = { prompt_eval_count = true },
  whole = function(seen, o)
    local prompt = number(o.prompt_eval_count)
    if prompt then
      seen.told = { prompt = prompt, completion = 0 }
    end
  end,
  no_completion = true,
}

local function openai_counts(usage)
  local prompt, completion = number(usage.prompt_tokens), number(usage.completion_tokens)
  local details = object(usage.prompt_tokens_details)
  return prompt and { prompt = prompt, cached = details and number(details.cached_tokens), completion = completion or 0 }
end

local function openai_whole(seen, o)
  local usage = object(o.usage)
  if usage then
    seen.told = openai_counts(usage)
  end
end

local function choice_says(choice)
  local delta = object(choice.delta) or choice
  return said(delta.content) or said(delta.text) or said(delta.reasoning) or said(delta.reasoning_content)
    or said(delta.refusal) or object(delta.tool_calls) or object(delta.function_call)
end

local openai = {
  wanted = { usage = true },
  counted = '"usage"',
  parts = { '"content"%s*:%s*"[^"]', '"text"%s*:%s*"[^"]', '"reasoning"%s*:%s*"[^"]' },
  whole = openai_whole,
  event = function(seen, o)
    seen.failed = seen.failed or object(o.error) ~= nil
    local choices, is_last = object(o.choices) or {}, true
    for _, choice in ipairs(choices) do
      if object(choice) then
        seen.deltas = seen.deltas + (choice_says(choice) and 1 or 0)
        is_last = is_last and said(choice.finish_reason)
      end
    end
    local usage = object(o.usage)
    local counts = usage and openai_counts(usage)
    -- Some have a count of zero in each chunk before the one that tells.
    if counts and counts.prompt + counts.completion > 0 then
      seen.so_far = counts
      seen.told = is_last and counts or seen.told
    end
  end,
}

local openai_embed = { wanted = { usage = true }, whole = openai_whole, no_completion = true }

local function responses_counts(usage)
  local prompt, details = number(usage.input_tokens), object(usage.input_tokens_details)
  return prompt
    and { prompt = prompt, cached = details and number(details.cached_tokens), completion = number(usage.output_tokens) or 0 }
end

local function responses_whole(seen, o)
  local usage = object(o.usage)
  if usage then
    seen.told = responses_counts(usage)
  end
end

local responses = {
  wanted = { usage = true },
  -- The whole answer is within its last event.
  event_level = 2,
  whole = responses_whole,
  event = function(seen, o)
    if said(o.delta) and said(o.type) and find(o.type, "%.delta$") then
      seen.deltas = seen.deltas + 1
    elseif object(o.response) then
      responses_whole(seen, o.response)
    end
    seen.failed = seen.failed or o.type == "error" or o.type == "response.failed" or object(o.error) ~= nil
  end,
}

-- Anthropic counts what was read from a cache, or written to it, apart from the rest of the prompt.
local function messages_counts(usage, begun)
  local function of(name)
    return number(usage[name]) or (begun and number(begun[name]))
  end
  local input, cached = of("input_tokens"), of("cache_read_input_tokens")
  return input
    and {
      prompt = input + (cached or 0) + (of("cache_creation_input_tokens") or 0),
      cached = cached,
      completion = number(usage.output_tokens) or 0,
    }
end

local messages = {
  wanted = { usage = true },
  whole = function(seen, o)
    local usage = object(o.usage)
    if usage then
      seen.told = messages_counts(usage)
    end
  end,
  event = function(seen, o)
    if o.type == "content_block_delta" and object(o.delta) then
      if said(o.delta.text) or said(o.delta.thinking) or said(o.delta.partial_json) then
        seen.deltas = seen.deltas + 1
      end
    elseif o.type == "message_start" and object(o.message) then
      seen.begun = object(o.message.usage)
    elseif o.type == "message_delta" and object(o.usage) then
      seen.told = messages_counts(o.usage, seen.begun)
    elseif o.type == "error" then
      seen.failed = true
    end
  end,
}

-- By call, as gateway_fields names them. What is not listed makes no tokens.
M.DIALECTS = {
  ["api/chat"] = native,
  ["api/generate"] = native,
  ["api/embed"] = native_embed,
  -- It tells no count at all.
  ["api/embeddings"] = native_embed,
  ["v1/chat/completions"] = openai,
  ["v1/completions"] = openai,
  ["v1/embeddings"] = openai_embed,
  ["v1/responses"] = responses,
  ["v1/messages"] = messages,
}

function M.new()
  return { deltas = 0 }
end

-- Whether an event is nothing but a part of the answer, as nearly all are: that is told without reading
-- its JSON. A quote within a text is escaped, so a key is found as a key only.
local function is_part(dialect, text)
  if find(text, dialect.counted) then
    return false
  end
  for place = 1, #dialect.parts do
    if find(text, dialect.parts[place]) then
      return true
    end
  end
  return false
end

-- Reads one event's JSON; `is_cut`: its beginning is missing. Returns it decoded, where it is whole and more than a part.
function M.read_event(dialect, seen, text, is_cut)
  if is_cut then
    local o = last_members(sub(text, -TAIL), dialect.event_level or 1, dialect.wanted)
    if o and dialect.whole then
      dialect.whole(seen, o)
    end
    return nil
  end
  if dialect.counted and is_part(dialect, text) then
    seen.deltas = seen.deltas + 1
    return nil
  end
  local o = object(json.decode(text))
  if o and dialect.event then
    dialect.event(seen, o)
  end
  return o
end

-- Reads a whole answer, or what is left of it where `is_cut`.
function M.read_whole(dialect, seen, text, is_cut)
  if #text > SMALL then
    local o = last_members(sub(text, -TAIL), 1, dialect.wanted)
    if o then
      dialect.whole(seen, o)
    end
  end
  if not seen.told and not is_cut then
    local o = object(json.decode(text))
    if o then
      dialect.whole(seen, o)
    end
  end
end

return M
