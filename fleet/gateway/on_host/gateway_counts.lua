-- Numbers of what is in flight, over all of nginx's workers, in shared memory. Each worker's own part
-- is kept beside the sum: what one had counted when it died is taken off again.
local ffi = require "ffi"

ffi.cdef [[
int kill(int pid, int sig);
]]

local M = {}
local OWN = "worker:" -- before the PID of a worker, a colon and a name
local dict, own

-- Adds to the number called `name`, and returns the sum over all workers.
function M.add(name, number)
  dict:incr(own .. name, number, 0)
  return dict:incr(name, number, 0) or 0
end

function M.get(name)
  return dict:get(name) or 0
end

-- Takes off what the workers that are gone had counted.
local function heal()
  for _, key in ipairs(dict:get_keys(0)) do
    local pid, name = key:match("^" .. OWN .. "(%d+):(.*)$")
    if pid and ffi.C.kill(tonumber(pid), 0) ~= 0 then
      local number = dict:get(key)
      dict:delete(key)
      if number and number ~= 0 then
        dict:incr(name, -number, 0)
      end
    end
  end
end

-- Called by each worker as it starts.
function M.start()
  dict = ngx.shared.counts
  own = OWN .. ngx.worker.pid() .. ":"
  -- One at a time, or two would take the same off.
  if dict:add("healing", true, 10) then
    heal()
    dict:delete("healing")
  end
end

return M
