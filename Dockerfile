# syntax=docker/dockerfile:1
#
# docker build -t streamingllm .
# docker build -t streamingllm-gateway --target gateway .
# docker build -t streamingllm-cluster --target cluster .
# docker run -d -p 127.0.0.1:8080:8080 -e STREAMINGLLM_API_KEY=KEY -v streamingllm:/data \
#     --stop-timeout 60 streamingllm --cache-size 2048
#
# Sessions, the model, kernels and compiled steps are on the volume. The first start fetches the model.

ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
# The index of torch without the libraries of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/streamingllm
ENV PATH=/opt/streamingllm/bin:$PATH
WORKDIR /source
COPY constraints.txt ./
RUN pip install --no-deps -c constraints.txt --index-url "${TORCH_INDEX}" torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install -c constraints.txt ".[server,grammar]"

FROM build AS cluster-build
RUN pip install -c constraints.txt ".[cluster,grammar]"

# Engines on Ray, for `streamingllm serve --cluster` and for KubeRay, whose probes call wget.
FROM python:${PYTHON} AS cluster
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ wget \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 streamingllm \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home streamingllm \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=cluster-build /opt/streamingllm /opt/streamingllm
COPY deploy/kuberay/ray_application.py /opt/application/
ENV PATH=/opt/streamingllm/bin:$PATH \
    PYTHONPATH=/opt/application \
    HOME=/data \
    XDG_CACHE_HOME=/data/cache \
    STREAMINGLLM_DATA_DIR=/data/sessions \
    STREAMINGLLM_HOST=0.0.0.0 \
    STREAMINGLLM_PORT=8080
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['STREAMINGLLM_PORT'] + '/-/healthz', timeout=4)"]
ENTRYPOINT ["streamingllm", "serve", "--cluster"]

# In front of a server of another kind; it computes nothing, so it needs no compiler.
FROM python:${PYTHON} AS gateway
RUN groupadd --gid 10001 streamingllm \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home streamingllm \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /opt/streamingllm /opt/streamingllm
ENV PATH=/opt/streamingllm/bin:$PATH \
    HOME=/data \
    XDG_CACHE_HOME=/data/cache
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=1m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8081/ready', timeout=4)"]
ENTRYPOINT ["streamingllm", "gateway", "--host", "0.0.0.0", "--port", "8081", "--data-dir", "/data"]

FROM python:${PYTHON} AS server
# Kernels and steps are compiled for the processor that they run on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 streamingllm \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home streamingllm \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /opt/streamingllm /opt/streamingllm
ENV PATH=/opt/streamingllm/bin:$PATH \
    HOME=/data \
    XDG_CACHE_HOME=/data/cache \
    STREAMINGLLM_DATA_DIR=/data/sessions \
    STREAMINGLLM_HOST=0.0.0.0 \
    STREAMINGLLM_PORT=8080
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['STREAMINGLLM_PORT'] + '/ready', timeout=4)"]
ENTRYPOINT ["streamingllm", "serve"]
