#!/bin/sh
# Prefect and MLflow read their secrets from the environment only. For each name below, NAME_FILE may name a file instead
# (a Compose or Kubernetes secret), so that no secret stands in a manifest or in `docker inspect`.
set -eu
for name in PREFECT_SERVER_DATABASE_CONNECTION_URL PREFECT_SERVER_API_AUTH_STRING PREFECT_API_AUTH_STRING \
    PREFECT_REDIS_MESSAGING_PASSWORD MLFLOW_BACKEND_STORE_URI MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_TRACKING_PASSWORD \
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
    eval "file=\${${name}_FILE:-}"
    if [ -n "$file" ]; then
        [ -r "$file" ] || { echo "entrypoint: $file, named by ${name}_FILE, cannot be read" >&2; exit 2; }
        export "$name=$(cat "$file")"
        unset "${name}_FILE"
    fi
done
exec "$@"
