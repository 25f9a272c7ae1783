# The worker with PyTorch's CUDA build, whose wheels bring CUDA's libraries; the driver comes from the host
# (NVIDIA Container Toolkit or the GPU operator):
#     docker build -f docker/gpu.Dockerfile -t perennial-gpu:0.1.0 .
# The base is pinned by tag; to pin its bytes, pass --build-arg BASE=python@sha256:... of the image you have vetted.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS packages
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY flows flows
COPY perennial perennial
COPY tasks tasks
COPY docker docker
RUN docker/install.sh gpu /opt/perennial

FROM ${BASE} AS worker
# Triton calls a C compiler for every kernel's launcher, at run time.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 perennial \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /home/perennial perennial \
    && install -d -o 10001 -g 10001 /srv/perennial
COPY docker/entrypoint.sh /usr/local/bin/entrypoint
COPY --from=packages /opt/perennial /opt/perennial
ENV PATH=/opt/perennial/bin:$PATH \
    PERENNIAL_HOME=/srv/perennial \
    PREFECT_HOME=/tmp/prefect \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HUB_OFFLINE=1 \
    TRITON_CACHE_DIR=/tmp/triton \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
# Deployments' entrypoints are relative to this folder.
COPY deployments/prefect.yaml deployments/prefect.yaml
COPY flows flows
COPY tasks tasks
USER 10001:10001
ENTRYPOINT ["entrypoint"]
CMD ["perennial", "--help"]
