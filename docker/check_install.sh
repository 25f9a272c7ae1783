#!/bin/sh
# Runs an image's install steps in a clean virtual environment and loads what it is for:
#     docker/check_install.sh server|cpu|gpu     (server and cpu: some three minutes; gpu: as long as CUDA's packages take)
set -eu

target=${1:-server}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

docker/install.sh "$target" "$folder/venv"
cd "$folder" # away from the sources: the installed packages must do
PATH=$folder/venv/bin:$PATH PERENNIAL_HOME=$folder/home DO_NOT_TRACK=1
export PATH PERENNIAL_HOME DO_NOT_TRACK
perennial --help >/dev/null
prefect version
case $target in
server)
    python -c 'import flask_wtf, psycopg2, asyncpg, boto3, prefect_redis, prefect_kubernetes, perennial.services.alert_bridge'
    python -c 'from prefect.server.api.server import create_app; create_app()'
    mlflow server --help >/dev/null
    ! python -c 'import torch' 2>/dev/null || { echo "check_install: PyTorch is in the servers' image" >&2; exit 1; }
    ;;
*)
    python -c 'import flows.retrain, torch, trl, peft, onnxruntime, s3fs; print("torch", torch.__version__)'
    ;;
esac
echo "check_install: $target works"
