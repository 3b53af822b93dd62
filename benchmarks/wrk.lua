-- Every request is the one before with another request_id, as `request_id` in bodies.py makes them.
-- wrk ... -s wrk.lua URL -- BODY_FILE PLACEHOLDER FIRST_ID AUTHORIZATION

local start, rest, made, middle
local n = 0

function init(args)
   local file = assert(io.open(args[1], "rb"))
   local body = file:read("*a")
   file:close()
   made, middle = tonumber(args[3]:sub(1, 8) .. args[3]:sub(10, 13), 16), args[3]:sub(14, 24)
   wrk.headers["Authorization"] = args[4]
   wrk.headers["Content-Type"] = "application/json"
   local whole = wrk.format("POST", nil, nil, body)
   local first, last = whole:find(args[2], 1, true)
   start, rest = whole:sub(1, first - 1), whole:sub(last + 1)
end

function request()
   n = n + 1
   local now = made + math.floor(n / 8)
   local high = math.floor(now / 65536)
   return start .. string.format("%08x-%04x%s%012x", high, now - high * 65536, middle, n) .. rest
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\nRESULT {"requests": %d, "microseconds": %d, "p50": %f, "p99": %f, "least": %f, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.min,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
