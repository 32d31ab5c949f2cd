-- What a row of the bench sends, and the totals of one run as one line of JSON.
-- Arguments after "--": path, then "same" or "distinct", then "keep" or "close".

local path, heads, number, thread_number = "/", "same", 0, 0

function setup(thread)
  thread:set("thread_number", thread_number)
  thread_number = thread_number + 1
end

function init(args)
  path, heads = args[1], args[2]
  if args[3] == "close" then
    wrk.headers["Connection"] = "close"
  end
  -- The standard request function sends one rendered request again and again.
  if heads == "distinct" then
    request = function()
      number = number + 1
      wrk.headers["X-Number"] = thread_number .. "-" .. number
      return wrk.format("GET", path .. "?n=" .. thread_number .. "-" .. number)
    end
  else
    wrk.path = path
    local rendered = wrk.format("GET", path)
    request = function()
      return rendered
    end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'TOTALS {"requests":%d,"microseconds":%d,"bytes":%d,"failures":%d,"bad_statuses":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.bytes, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
