# Two images without a GPU:
#     docker build -f docker/cpu.Dockerfile --target server -t perennial-server:0.1.0 .
#     docker build -f docker/cpu.Dockerfile --target worker -t perennial-cpu:0.1.0 .
# The base is pinned by tag; to pin its bytes, pass --build-arg BASE=python@sha256:... of the image you have vetted.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS sources
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY flows flows
COPY perennial perennial
COPY tasks tasks
COPY docker docker

FROM sources AS server-packages
RUN docker/install.sh server /opt/perennial

FROM sources AS worker-packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN TORCH_INDEX="${TORCH_INDEX}" docker/install.sh cpu /opt/perennial

FROM ${BASE} AS runtime
RUN groupadd --gid 10001 perennial \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /home/perennial perennial \
    && install -d -o 10001 -g 10001 /srv/perennial
COPY docker/entrypoint.sh /usr/local/bin/entrypoint
ENV PATH=/opt/perennial/bin:$PATH \
    PERENNIAL_HOME=/srv/perennial \
    PREFECT_HOME=/tmp/prefect \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HUB_OFFLINE=1
WORKDIR /app
# Deployments' entrypoints are relative to this folder.
COPY deployments/prefect.yaml deployments/prefect.yaml
COPY flows flows
COPY tasks tasks
USER 10001:10001
ENTRYPOINT ["entrypoint"]

FROM runtime AS server
COPY --from=server-packages /opt/perennial /opt/perennial
CMD ["perennial", "--help"]

FROM runtime AS worker
COPY --from=worker-packages /opt/perennial /opt/perennial
CMD ["perennial", "--help"]
