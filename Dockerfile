# syntax=docker/dockerfile:1
#
# docker build -t streamingllm .
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
