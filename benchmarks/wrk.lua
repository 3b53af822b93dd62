-- Every request is the one before with another request_id: three strings joined, nothing else built.
-- wrk ... -s wrk.lua URL -- BODY_FILE PLACEHOLDER ID_PREFIX AUTHORIZATION

local start, rest, prefix
local n = 0

function init(args)
   local file = assert(io.open(args[1], "rb"))
   local body = file:read("*a")
   file:close()
   prefix = args[3]
   wrk.headers["Authorization"] = args[4]
   wrk.headers["Content-Type"] = "application/json"
   local whole = wrk.format("POST", nil, nil, body)
   local first, last = whole:find(args[2], 1, true)
   start, rest = whole:sub(1, first - 1), whole:sub(last + 1)
end

function request()
   n = n + 1
   return start .. prefix .. string.format("%012x", n) .. rest
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\nRESULT {"requests": %d, "microseconds": %d, "p50": %f, "p99": %f, "least": %f, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.min,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
