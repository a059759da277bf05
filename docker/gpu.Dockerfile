# The service, the index builder and the workshop on NVIDIA GPUs; the host brings the driver.
#
#     docker build -f docker/gpu.Dockerfile -t lipsim-retrieval:gpu .
#     docker build -f docker/gpu.Dockerfile -t lipsim-retrieval:gpu-training --target training .
#
# cpu.Dockerfile says why each step is as it is; here stand only the differences.

ARG PYTHON_IMAGE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# --- builder: the virtual environment and our three packages; nothing else leaves this stage ---
FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
# One lock file with hashes for everything, torch and CUDA's libraries too: several GB.
COPY requirements/runtime-gpu.txt requirements/
RUN python -m pip --python /opt/venv/bin/python install --require-hashes -r requirements/runtime-gpu.txt
RUN /opt/venv/bin/python -c \
    "import sys, torch, faiss; sys.exit(not (torch.version.cuda and hasattr(faiss, 'StandardGpuResources')))"
COPY LICENSE README.md pyproject.toml ./
COPY model model
COPY index_builder index_builder
COPY service service
RUN python -m pip --python /opt/venv/bin/python install \
    --no-deps --no-build-isolation --target /opt/app .

# --- training-builder: what `model.train`, `model.evaluate` and `model.attack` need beside that ---
FROM builder AS training-builder
COPY requirements/train.txt requirements/
RUN python -m pip --python /opt/venv/bin/python install --require-hashes -r requirements/train.txt

# --- base: what both final images share ---
FROM ${PYTHON_IMAGE} AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends libjemalloc2 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
RUN groupadd --gid 10001 lipsim \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lipsim \
    && install --directory --owner=10001 --group=10001 /data
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_PRELOAD=libjemalloc.so.2 \
    LIPSIM_HOST=0.0.0.0 \
    LIPSIM_PORT=8000 \
    LIPSIM_DATA_DIR=/data
WORKDIR /opt/app
ENTRYPOINT ["python", "-m"]

# --- training ---
FROM base AS training
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="LipSim Retrieval: training on GPUs" \
      org.opencontainers.image.description="Training, evaluation and attacks of the embedding network." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=training-builder --chown=root:root /opt/venv /opt/venv
COPY --from=training-builder --chown=root:root /opt/app /opt/app
USER 10001:10001
CMD ["model.train", "--help"]

# --- service: the default target ---
FROM base AS service
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="LipSim Retrieval on GPUs" \
      org.opencontainers.image.description="Image retrieval over HTTP whose answers carry a proved radius." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder --chown=root:root /opt/venv /opt/venv
COPY --from=builder --chown=root:root /opt/app /opt/app
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LIPSIM_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["service"]
