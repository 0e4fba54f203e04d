-- Log each request, delay it, and fail some. Parameters: latency_ms; fault, with match (of "METHOD uri"), key (of S3,
-- or a token), times (maximum number), p (probability), retry_after (seconds), rate (bytes per second, of "trickle") and
-- token (of the machine in Google's cloud). It checks the tokens of Google's buckets, because fake-gcs-server does not.
local knobs, log = ngx.shared.knobs, ngx.shared.log
local function number(name, default) return tonumber(knobs:get(name) or default) end

local request = ngx.req.get_method() .. " " .. ngx.var.request_uri
local authorization = ngx.var.http_authorization or ""
local fault = knobs:get("fault") and tostring(knobs:get("fault"))
local key, service = knobs:get("key"), ngx.var.service
local path = ngx.unescape_uri(request)
if fault then
    local wanted = ngx.re.find(path, knobs:get("match") or ".") and
        (not key or authorization:find("Credential=" .. key .. "/", 1, true) or authorization == "Bearer " .. key)
    if not wanted or math.random() >= number("p", 1) or (knobs:get("times") and knobs:incr("times", -1) < 0) then fault = nil end
end
local payer = ngx.var.http_x_amz_request_payer or ngx.var.http_x_goog_user_project
log:rpush("requests", table.concat({
    request, ngx.var.http_range or "-", fault or "-",
    authorization:match("Credential=([^/]*)") or authorization:match("Bearer (.*)") or authorization:match("SharedKey ([^:]*)") or "-",
    authorization:match("Credential=[^/]*/[^/]*/([^/]*)") or "-", payer or "-",
}, "\t"))
local now = log:incr("now", 1, 0)
ngx.ctx.counted = true
if now > (log:get("most") or 0) then log:set("most", now) end
if number("latency_ms", 0) > 0 then ngx.sleep(number("latency_ms") / 1000) end

local function refuse(status, code)
    ngx.status = status
    ngx.header["Content-Type"] = "application/xml"
    ngx.header["Retry-After"] = knobs:get("retry_after")
    ngx.print('<?xml version="1.0" encoding="UTF-8"?><Error><Code>' .. code .. "</Code><Message>" .. code .. "</Message></Error>")
    return ngx.exit(status)
end
if fault == "503" then return refuse(503, "SlowDown") end
if fault == "429" then return refuse(429, "TooManyRequests") end
if fault == "500" then return refuse(500, "InternalError") end
if fault == "expired" then
    if service == "gcs" then return refuse(401, "InvalidAuthentication") end
    return refuse(service == "azure" and 403 or 400, service == "azure" and "AuthenticationFailed" or "ExpiredToken")
end
if fault == "gone" then return refuse(404, "NoSuchKey") end
if fault == "reset" then return ngx.exit(444) end
if fault == "hang" then ngx.sleep(3600) end
if fault == "trickle" then ngx.var.limit_rate = number("rate", 1) end
if fault == "cut" or fault == "corrupt" then ngx.ctx[fault] = true end

local is_read = ngx.req.get_method() == "GET" or ngx.req.get_method() == "HEAD"
if service == "gcs" and ngx.re.find(path, "^[A-Z]+ (/private|.*/b/private)(/|\\?|$)") then
    if authorization ~= "Bearer ADMINTOKEN" and not (is_read and authorization == "Bearer READERTOKEN") then
        return refuse(authorization == "" and 401 or 403, "AccessDenied")
    end
end
