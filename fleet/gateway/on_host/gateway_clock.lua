-- How much time has passed, whoever sets the host's clock: nginx's own timers go by the same. What of an
-- hour, a day or the end of a key is said, ngx.time and ngx.now say.
local ffi = require "ffi"

ffi.cdef [[
extern volatile uintptr_t ngx_current_msec;
]]

local C, tonumber = ffi.C, tonumber

local M = {}

-- Seconds since some moment before nginx was started, as nginx knew them when it last looked.
function M.now()
  return tonumber(C.ngx_current_msec) / 1000
end

return M
