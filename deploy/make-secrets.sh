#!/usr/bin/env bash
# The secrets of docker-compose.yml, made at random below deploy/secrets/ (or the folder that SECRETS names). What is
# there is kept: run it again after an interruption, or after removing the one that is to be renewed.
#
#   deploy/make-secrets.sh HOST        the certificate is a self-signed one for HOST: put your own in its place
#
# As root: each file belongs to the one user of the one container that reads it, and nobody else can.
set -euo pipefail
umask 077
host=${1:?the name under which readers reach the repository, such as images.example.org}
if ((EUID != 0)); then
  echo "run this as root: the users of the containers must own what they read" >&2
  exit 1
fi
directory=${SECRETS:-$(dirname "$0")/secrets}
server=10001 postgres=999 grafana=472 # the users of the images
mkdir -p "$directory"
cd "$directory"
chmod 0711 .

random() { openssl rand -hex 24; }
make() { # NAME, its content on standard input; left alone when it is there
  if [[ -s "$1" ]]; then cat >/dev/null; else cat >"$1.new" && mv "$1.new" "$1"; fi
}

random | make database_password
random | make grafana_password
random | make key_passphrase
[[ -s s3_key ]] || { printf '%s %s\n' "$(openssl rand -hex 10)" "$(random)" | make s3_key; }
read -r access secret <s3_key

printf '*:*:oscirc:oscirc:%s\n' "$(cat database_password)" | make pgpass
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$access" "$secret" | make s3_credentials
make s3_identities <<JSON
{
  "identities": [
    {"name": "server", "credentials": [{"accessKey": "$access", "secretKey": "$secret"}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
    {"name": "anonymous", "actions": ["Read:oscirc"]}
  ]
}
JSON

if [[ ! -s tls_certificate || ! -s tls_key ]]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=$host" \
    -addext "subjectAltName=DNS:$host" -keyout tls_key -out tls_certificate 2>/dev/null
  echo "a self-signed certificate for $host: replace $directory/tls_certificate and tls_key by your own" >&2
fi

chmod 0600 ./*
chown 0:0 ./*
chown "$server:$server" pgpass s3_credentials key_passphrase
chown "$postgres:$postgres" database_password
chown "$grafana:0" grafana_password
echo "secrets are in $directory" >&2
