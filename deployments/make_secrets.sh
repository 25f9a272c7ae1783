#!/bin/sh
# Random secrets for one installation, one file each, readable by their owner alone; Compose mounts them, Kubernetes takes
# them over:   deployments/make_secrets.sh FOLDER     An existing file is never replaced, so that running it again is safe.
# A file's name is the key of the secret. POSTGRES_HOST (default `postgres`) is where the databases are.
set -eu
folder=${1:?usage: make_secrets.sh FOLDER}
host=${POSTGRES_HOST:-postgres}
umask 077
mkdir -p "$folder"
cd "$folder"
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
put() { [ -e "$1" ] || printf '%s' "$2" >"$1"; }

put postgres-password "$(random)"
put redis-password "$(random)"
put prefect-auth "perennial:$(random)"
put mlflow-password "$(random)"
put mlflow-session-key "$(random)"
put alert-token "$(random)"
put bucket-key-id "$(random)"
put bucket-secret "$(random)"
put prefect-database-url "postgresql+asyncpg://perennial:$(cat postgres-password)@$host:5432/prefect"
put mlflow-database-url "postgresql+psycopg2://perennial:$(cat postgres-password)@$host:5432/mlflow"
put redis.conf "requirepass $(cat redis-password)
appendonly yes
dir /data
"
put mlflow-auth.ini "[mlflow]
default_permission = READ
database_uri = postgresql+psycopg2://perennial:$(cat postgres-password)@$host:5432/mlflow_auth
admin_username = admin
admin_password = $(cat mlflow-password)
"
put bucket.json "{\"identities\": [{\"name\": \"perennial\", \"credentials\": [{\"accessKey\": \"$(cat bucket-key-id)\",
 \"secretKey\": \"$(cat bucket-secret)\"}], \"actions\": [\"Admin\", \"Read\", \"Write\", \"List\", \"Tagging\"]}]}
"
