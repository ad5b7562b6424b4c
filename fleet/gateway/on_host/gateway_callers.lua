-- Who calls, and how much of what its key may have is left.
--
-- Keys are known by their SHA-256 only: they are 256 random bits, which nobody guesses from it.
local bit = require "bit"
local clock = require "gateway_clock"
local counts = require "gateway_counts"
local ffi = require "ffi"
local names = require "gateway_names"
local store = require "gateway_store"

ffi.cdef [[
unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);
]]

local ceil, floor, format, max, min = math.ceil, math.floor, string.format, math.max, math.min
local byte, match, sub = string.byte, string.match, string.sub

local M = {}
local DIGEST = ffi.new("unsigned char[32]")
local LENGTH = 67 -- of a key: sk- and 64 digits
local keys, callers = {}, {}

local function from_hex(text)
  return (text:gsub("%x%x", function(pair)
    return string.char(tonumber(pair, 16))
  end))
end

-- A network as {bytes of the address, whole bytes, mask of the byte after them}.
local function network(text)
  local address, bits = match(text, "^(.+)/(%d+)$")
  local packed = {}
  if address:find(":", 1, true) then
    -- Python writes all eight groups.
    for group in address:gmatch("%x+") do
      local number = tonumber(group, 16)
      packed[#packed + 1] = string.char(floor(number / 256), number % 256)
    end
  else
    for part in address:gmatch("%d+") do
      packed[#packed + 1] = string.char(tonumber(part))
    end
  end
  local whole = floor(tonumber(bits) / 8)
  return { bytes = table.concat(packed), whole = whole, mask = bit.lshift(255, 8 - bits % 8) % 256 }
end

local function is_within(address, net)
  local bytes, whole = net.bytes, net.whole
  if #address ~= #bytes or sub(address, 1, whole) ~= sub(bytes, 1, whole) then
    return false
  end
  return net.mask == 0
    or bit.band(byte(address, whole + 1), net.mask) == bit.band(byte(bytes, whole + 1), net.mask)
end

local function set_of(models)
  local found = {}
  for _, name in ipairs(models) do
    found[names.plain(name)] = true
  end
  return found
end

-- `declared` as fleet/gateway/declared_lua.py writes it.
function M.init(declared)
  keys, callers = {}, {}
  for name, item in pairs(declared.callers) do
    local rate = item.rate
    callers[name] = {
      name = name,
      admin = item.admin,
      overrides = item.overrides,
      models = item.models and set_of(item.models),
      concurrent = item.concurrent,
      in_flight = "key:" .. name,
      rate = rate and {
        requests = rate.requests, interval = rate.seconds / rate.requests, burst = rate.burst,
        key = "rate:" .. name,
      },
      tokens = item.tokens,
      from = item.from,
    }
    if item.from then
      for place, text in ipairs(item.from) do
        callers[name].from[place] = network(text)
      end
    end
  end
  for digest, item in pairs(declared.keys) do
    keys[from_hex(digest)] = { caller = callers[item.name], ends = item.ends }
  end
end

-- The key that a request presents; an Authorization header is decisive where there is one.
local function presented(authorization, x_api_key)
  if not authorization or authorization == "" then
    return x_api_key
  end
  local scheme, value = match(authorization, "^(%a+) (.*)$")
  return scheme and scheme:lower() == "bearer" and value or nil
end

-- The caller whose key is presented and has not ended, or nil.
function M.find(authorization, x_api_key)
  local value = presented(authorization, x_api_key)
  if not value or #value ~= LENGTH then
    return nil
  end
  ffi.C.SHA256(value, LENGTH, DIGEST)
  local known = keys[ffi.string(DIGEST, 32)]
  if not known or known.ends and ngx.now() >= known.ends then
    return nil
  end
  return known.caller
end

-- Whether the caller's key works from `address`, as $binary_remote_addr has it.
function M.may_come_from(caller, address)
  if not caller.from then
    return true
  end
  for _, net in ipairs(caller.from) do
    if is_within(address, net) then
      return true
    end
  end
  return false
end

-- As OpenAI writes it: 6m0s.
local function duration(seconds)
  seconds = max(0, ceil(seconds))
  local hours, minutes = floor(seconds / 3600), floor(seconds / 60) % 60
  if hours > 0 then
    return format("%dh%dm%ds", hours, minutes, seconds % 60)
  end
  return minutes > 0 and format("%dm%ds", minutes, seconds % 60) or format("%ds", seconds)
end

-- The time at which a bucket that leaks a request each `interval` is empty again. Whether this
-- request still went in, then how many more would, then in how many seconds it is empty.
local function pour(rate)
  local dict, now, interval = ngx.shared.counts, clock.now(), rate.interval
  local empty = dict:incr(rate.key, interval, now)
  if not empty then
    return true, 0, 0
  end
  if empty < now + interval then
    -- It was empty before: what it has leaked since is not saved up.
    empty = now + interval
    dict:set(rate.key, empty)
  end
  -- A thousandth of a request: sums of fractions are not exact.
  local left = floor((rate.burst * interval - (empty - now)) / interval + 1.001)
  if left < 0 then
    dict:incr(rate.key, -interval)
    return false, 0, empty - now - interval - rate.burst * interval
  end
  return true, left, empty - now
end

local function refuse(seconds, what)
  return { retry_after = max(1, ceil(seconds)), text = what }
end

-- Counts a request in. nil when it may go on: `M.leave` belongs to its end then; or why not:
-- {retry_after = seconds, text}. `headers` is filled with what the caller is told of its limits.
function M.enter(caller, headers)
  local rate, tokens = caller.rate, caller.tokens
  if rate then
    local passed, left, seconds = pour(rate)
    headers["x-ratelimit-limit-requests"] = rate.requests
    headers["x-ratelimit-remaining-requests"] = min(rate.requests, left)
    headers["x-ratelimit-reset-requests"] = duration(seconds)
    if not passed then
      return refuse(seconds, "more requests than this key may send at this rate; see Retry-After")
    end
  end
  if tokens then
    local spent, seconds = store.spent(caller.name, tokens.window)
    headers["x-ratelimit-limit-tokens"] = format("%d", tokens.amount)
    headers["x-ratelimit-remaining-tokens"] = format("%d", max(0, tokens.amount - spent))
    headers["x-ratelimit-reset-tokens"] = duration(seconds)
    if spent >= tokens.amount then
      return refuse(seconds, "this key has used its tokens at this gateway; see Retry-After")
    end
  end
  counts.add(caller.in_flight, 1)
  if counts.get(caller.in_flight) > caller.concurrent then
    counts.add(caller.in_flight, -1)
    return refuse(1, "this key has as many requests in flight as it may have; see Retry-After")
  end
end

-- Counts it out again.
function M.leave(caller)
  counts.add(caller.in_flight, -1)
end

return M
