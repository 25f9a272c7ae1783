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
pip() { "$venv/bin/python" -m pip --disable-pip-version-check install --no-cache-dir "$@"; }
locked() { pip --no-deps --require-hashes -r "docker/$1.lock"; }

case $target in
server)
    locked server
    ;;
cpu | gpu)
    # torch apart and without a hash: its build depends on the platform, and a CUDA build brings packages of its own.
    if [ "$target" = cpu ] && [ -n "${TORCH_INDEX:-}" ]; then index="--index-url $TORCH_INDEX"; else index=; fi
    locked worker
    # shellcheck disable=SC2086 # two words or none
    pip -c constraints.txt $index torch
    ;;
*)
    echo "install.sh: '$target' is none of server, cpu, gpu" >&2
    exit 2
    ;;
esac
pip --no-deps --no-build-isolation .
# From here on the code is the installed one.
"$venv/bin/python" -c 'import perennial.cli'
