-- Sends the requests of a file over and over, and says the totals of one run as one line of JSON.
-- Arguments after "--": the file, and how many requests to skip first. The file has for each request a line
-- with its length in bytes and then the request; bench/wrk.py writes it. Nothing is rendered while the run lasts.

local requests, count, next_one = {}, 0, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local content = file:read("*a")
  file:close()
  local position = 1
  while position <= #content do
    local line_end = content:find("\n", position, true)
    local length = tonumber(content:sub(position, line_end - 1))
    count = count + 1
    requests[count] = content:sub(line_end + 1, line_end + length)
    position = line_end + length + 1
  end
  next_one = tonumber(args[2]) % count
end

function request()
  next_one = next_one % count + 1
  return requests[next_one]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'TOTALS {"requests":%d,"microseconds":%d,"bytes":%d,"failures":%d,"bad_statuses":%d,' ..
    '"p50_us":%d,"p90_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.bytes, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
