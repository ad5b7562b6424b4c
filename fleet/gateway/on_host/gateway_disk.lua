-- Files that are whole or not there, whenever the power goes. Runs in a thread of its own, too, as a
-- busy disk would keep nginx from everything else.
local ffi = require "ffi"

-- A thread's Lua begins with its compiler on, which the unit forbids.
jit.off()
ffi.cdef [[
int open(const char *path, int flags, ...);
int close(int fd);
int fsync(int fd);
int flock(int fd, int operation);
int mkdir(const char *path, unsigned int mode);
char *strerror(int errnum);
]]

local C = ffi.C
local READ_ONLY, READ_WRITE, CREATE, CLOSE_ON_EXEC = 0, 2, 64, 524288
local EXCLUSIVE, AT_ONCE = 2, 4
local EXISTS = 17

local M = {}

local function reason()
  return ffi.string(C.strerror(ffi.errno()))
end

local function synced(path)
  local fd = C.open(path, READ_ONLY + CLOSE_ON_EXEC)
  if fd < 0 then
    return nil, reason()
  end
  local result = C.fsync(fd)
  local why = result ~= 0 and reason() or nil
  C.close(fd)
  return result == 0, why
end

-- Makes the folder `path`, if it is not there. Returns nil or why not.
function M.folder(path)
  if C.mkdir(path, 488) ~= 0 and ffi.errno() ~= EXISTS then -- 0750
    return path .. ": " .. reason()
  end
end

-- Replaces `folder`/`name`. Returns nil or why not.
function M.write(folder, name, text)
  local path = folder .. "/" .. name
  local file, why = io.open(path .. ".new", "w")
  if not file then
    return why
  end
  local written
  written, why = file:write(text)
  local closed, why_not = file:close()
  if not written or not closed then
    return path .. ": " .. (why or why_not)
  end
  local kept
  kept, why = synced(path .. ".new")
  if kept then
    kept, why = os.rename(path .. ".new", path)
  end
  if kept then
    kept, why = synced(folder)
  end
  return not kept and path .. ": " .. why or nil
end

-- A lock that one process has at a time, until it is unlocked or that process ends; nil and why where
-- another has it and `wait` is false, or where it cannot be made.
function M.lock(path, wait)
  local fd = C.open(path, READ_WRITE + CREATE + CLOSE_ON_EXEC, ffi.cast("int", 416)) -- 0640
  if fd < 0 then
    return nil, path .. ": " .. reason()
  end
  if C.flock(fd, EXCLUSIVE + (wait and 0 or AT_ONCE)) ~= 0 then
    C.close(fd)
    return nil
  end
  return fd
end

function M.unlock(fd)
  C.close(fd)
end

return M
