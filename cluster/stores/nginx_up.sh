#!/usr/bin/env bash
# Start nginx on loopback: a web server of a folder over HTTP and HTTPS, and a proxy in front of the servers of S3, Google
# and Azure that counts requests, delays them and injects faults. Print the addresses, one NAME=value per line.
#   NGINX_DIR   folder for logs, certificates and pid; the web server serves its www/ (created)
#   NGINX_PORT  first of its seven ports
#   S3_PORT, GCS_PORT, AZURE_PORT  ports of the servers behind the proxy
# Needs nginx with its Lua module, and openssl. Installs them on Debian if it has the permission.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${NGINX_DIR:?a folder that may be removed} port=${NGINX_PORT:-18480}
modules=/usr/lib/nginx/modules
if [ ! -f $modules/ngx_http_lua_module.so ] || ! command -v openssl > /dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "Cannot find nginx with Lua. Install it: apt-get install nginx-light libnginx-mod-http-lua openssl" >&2
        exit 1
    fi
    "$here/../apt_install.sh" nginx-light libnginx-mod-http-lua openssl curl
fi
mkdir -p "$dir"/{www,tmp,logs,tls}
rm -f "$dir/web" # a socket that is left is not taken over
(
    cd "$dir/tls" # a certificate of its own authority, as a self-signed one is refused by some clients
    new=(openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30)
    "${new[@]}" -x509 -keyout ca.key -out ca.pem -subj "/CN=test authority"
    "${new[@]}" -keyout leaf.key -out leaf.csr -subj "/CN=localhost"
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > leaf.ext
    openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile leaf.ext -out leaf.pem
) 2> "$dir/logs/openssl"
sed -e "s|@USER@|$(id -un) $(id -gn)|g; s|@DIR@|$dir|g; s|@HERE@|$here|g; s|@MODULES@|$modules|g; s|@S3@|${S3_PORT:-18333}|g" \
    -e "s|@GCS@|${GCS_PORT:-18500}|g; s|@AZURE@|${AZURE_PORT:-18510}|g" \
    -e "s|@GCS_PROXY@|$((port + 5))|g; s|@AZURE_PROXY@|$((port + 6))|g" \
    -e "s|@CONTROL@|$port|g; s|@PROXY@|$((port + 1))|g; s|@PROXY_TLS@|$((port + 2))|g" \
    -e "s|@WEB@|$((port + 3))|g; s|@WEB_TLS@|$((port + 4))|g" "$here/nginx.conf" > "$dir/nginx.conf"
nohup setsid nginx -e "$dir/logs/error" -c "$dir/nginx.conf" -p "$dir/" > "$dir/logs/out" 2>&1 < /dev/null &
echo $! > "$dir/pid"
for _ in $(seq 40); do
    if curl -sf "http://127.0.0.1:$port/log" > /dev/null; then
        printf '%s=%s\n' control "http://127.0.0.1:$port" s3 "http://127.0.0.1:$((port + 1))" s3_tls "https://localhost:$((port + 2))" \
            web "http://127.0.0.1:$((port + 3))" web_tls "https://localhost:$((port + 4))" gcs "http://127.0.0.1:$((port + 5))" azure "http://127.0.0.1:$((port + 6))" ca "$dir/tls/ca.pem" www "$dir/www"
        exit 0
    fi
    sleep 0.25
done
cat "$dir"/logs/{out,error} >&2
exit 1
