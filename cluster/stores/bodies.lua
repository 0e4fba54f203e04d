-- Apply the decision of faults.lua to the body of a response: keep half of it, or change one byte.
local part = ngx.arg[1]
if ngx.ctx.ended then return ngx.ERROR end -- which ends the connection
if #part < 2 then return end
local middle = math.floor(#part / 2)
if ngx.ctx.cut then
    ngx.ctx.ended = true
    ngx.arg[1], ngx.arg[2] = part:sub(1, middle), false
elseif ngx.ctx.corrupt then
    ngx.ctx.corrupt = nil
    ngx.arg[1] = part:sub(1, middle) .. string.char((part:byte(middle + 1) + 1) % 256) .. part:sub(middle + 2)
end
