#!/usr/bin/env bash
# Create a certificate authority, a certificate for all parts of a Dask cluster, and Dask's configuration for it.
#   bash certificates.sh FOLDER [DAYS]      writes ca.pem, cert.pem, key.pem and dask.yaml there, readable by you alone
# With DASK_CONFIG=FOLDER (or dask.yaml copied to ~/.config/dask) scheduler, workers and clients speak only TLS.
set -euo pipefail
mkdir -p "$1"
folder=$(realpath "$1") days=${2:-30}
umask 077
cd "$folder"
openssl req -x509 -newkey rsa:2048 -nodes -days "$days" -subj "/CN=dask authority" -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=dask" -keyout key.pem -out request.pem 2>/dev/null
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" -out cert.pem 2>/dev/null
rm request.pem ca.key ca.srl # who has the authority's key could make more certificates
cat >dask.yaml <<CONFIG
distributed:
  comm:
    default-scheme: tls
    require-encryption: true
    tls:
      ca-file: $folder/ca.pem
      scheduler: {cert: $folder/cert.pem, key: $folder/key.pem}
      worker: {cert: $folder/cert.pem, key: $folder/key.pem}
      client: {cert: $folder/cert.pem, key: $folder/key.pem}
CONFIG
