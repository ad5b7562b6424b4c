-- Numbers of what is in flight, over all of nginx's workers. Each worker has a row of memory of its own,
-- which all can read: counting takes no lock, and what a worker had counted goes with it when it dies.
--
-- The master maps that memory once, and every worker inherits it, those of before a reload too. The dict
-- has where it is, and which place of a row belongs to a name. The first place of a row is the PID of its
-- worker, 0 where it is free; row 0 is none: it begins with how many rows there are.
local ffi = require "ffi"

ffi.cdef [[
int kill(int pid, int sig);
void *mmap(void *at, size_t length, int prot, int flags, int file, long offset);
void *memset(void *at, int byte, size_t length);
]]

local ROWS, PLACES = 1024, 8192 -- workers at a time; names since nginx was started
local ROW = PLACES * 4 -- bytes
local READ_WRITE, SHARED_ANONYMOUS = 3, 0x21

local M = {}
local dict, all, own = nil, nil, 0
local places = {} -- by name

-- In the master, before there are workers. Pages that nobody has written to take no memory.
function M.init()
  dict = ngx.shared.counts
  local address = dict:get("address")
  if not address then
    local at = ffi.C.mmap(nil, ROWS * ROW, READ_WRITE, SHARED_ANONYMOUS, -1, 0)
    address = tonumber(ffi.cast("intptr_t", at))
    assert(address ~= -1, "no memory to count in what is in flight")
    assert(dict:set("address", address))
  end
  all = ffi.cast("int32_t *", address)
end

local function learn(name)
  local key = "place:" .. name
  local place = dict:get(key)
  if not place then
    -- Another worker may be the first: then its place is everybody's, and this one stays empty.
    dict:add(key, dict:incr("places", 1, 0))
    place = dict:get(key)
  end
  assert(place < PLACES, "more names of keys and servers than can be counted: restart nginx")
  places[name] = place
  return place
end

function M.get(name)
  local place, sum = places[name] or learn(name), 0
  for row = 1, all[0] do
    sum = sum + all[row * PLACES + place]
  end
  return sum
end

function M.add(name, number)
  local at = own + (places[name] or learn(name))
  all[at] = all[at] + number
end

-- Frees the rows of workers that are gone.
local function heal()
  for row = 1, all[0] do
    local pid = all[row * PLACES]
    -- One frees it, whoever sees it first.
    if pid ~= 0 and ffi.C.kill(pid, 0) ~= 0 and dict:add("gone:" .. pid, true, 60) then
      ffi.C.memset(all + row * PLACES, 0, ROW)
      dict:lpush("free", row)
    end
  end
end

-- Called by each worker as it starts.
function M.start()
  heal()
  local row = dict:lpop("free") or dict:incr("rows", 1, 0)
  assert(row < ROWS, "more workers of nginx than can be counted for")
  own = row * PLACES
  all[own] = ngx.worker.pid()
  -- Two may do this at once: the last one to write is right.
  local rows
  repeat
    rows = dict:get("rows")
    all[0] = rows
  until dict:get("rows") == rows
end

return M
