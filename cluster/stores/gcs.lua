-- Translate uploads of Google's XML interface, which fake-gcs-server does not have, into uploads of its JSON interface.
local bucket, object = ngx.var.uri:match("^/([^/]+)/(.+)$")
if ngx.req.get_method() ~= "PUT" or not object or ngx.var.uri:find("^/upload/") then return end
ngx.req.set_uri_args({
    uploadType = "media", name = object, ifGenerationMatch = ngx.var.http_x_goog_if_generation_match,
})
ngx.ctx.is_upload = true
