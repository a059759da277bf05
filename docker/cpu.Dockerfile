# The service, the index builder and the workshop on a CPU: no CUDA library is in these images.
#
#     docker build -f docker/cpu.Dockerfile -t lipsim-retrieval:cpu .
#     docker build -f docker/cpu.Dockerfile -t lipsim-retrieval:cpu-training --target training .
#
# `make prove-images` runs every step of this file without Docker, and then the image.

# A tag is a name for people; the digest is what is pulled. docs/deployment-containers.md renews it.
ARG PYTHON_IMAGE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# --- builder: the virtual environment and our three packages; nothing else leaves this stage ---
FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
# Without pip: what runs has no installer. The pip of the base works on the environment from outside.
RUN python -m venv --without-pip /opt/venv
# As in the Makefile, torch comes first and alone: the CPU build, instead of the CUDA build.
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m pip --python /opt/venv/bin/python install --no-deps --retries 1 \
    "${TORCH}" --extra-index-url "${TORCH_INDEX}"
# Headers and test programs of torch, 0.2 GB, that no running program reads.
RUN cd /opt/venv/lib/python3.11/site-packages/torch \
    && rm -r include test && find bin -type f ! -name torch_shm_manager -delete
COPY requirements/runtime.txt requirements/
RUN python -m pip --python /opt/venv/bin/python install --require-hashes -r requirements/runtime.txt
# An image that grew by gigabytes would be noticed late; this says so at once.
RUN /opt/venv/bin/python -c \
    "import sys, torch; sys.exit(torch.version.cuda and 'torch is a CUDA build: ' + torch.__version__)"
# Our own code last and apart: a change of it leaves the large layer above as it was.
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
# jemalloc: FAISS and torch allocate large blocks from many threads, and glibc's heap, cut to pieces
# by them, gives little back: a service that swaps indexes for months would only grow.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libjemalloc2 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
# A fixed number, so that a volume or a cluster policy can name it; /data is all it may write to.
RUN groupadd --gid 10001 lipsim \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lipsim \
    && install --directory --owner=10001 --group=10001 /data
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LD_PRELOAD=libjemalloc.so.2 \
    LIPSIM_HOST=0.0.0.0 \
    LIPSIM_PORT=8000 \
    LIPSIM_DATA_DIR=/data
WORKDIR /opt/app
# Exec form: Python itself is the process that gets SIGTERM. `python -m index_builder ...` and
# `python -m model.train ...` are the same image with other words behind it.
ENTRYPOINT ["python", "-m"]

# --- training ---
FROM base AS training
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="LipSim Retrieval: training" \
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
LABEL org.opencontainers.image.title="LipSim Retrieval" \
      org.opencontainers.image.description="Image retrieval over HTTP whose answers carry a proved radius." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# Owned by root: the process that parses strangers' pictures cannot change its own code.
COPY --from=builder --chown=root:root /opt/venv /opt/venv
COPY --from=builder --chown=root:root /opt/app /opt/app
USER 10001:10001
EXPOSE 8000
# /readyz, not /livez: `depends_on` and proxies read this as "traffic may come", and a process
# without model or index must not get any. Docker itself restarts nothing for it; where something
# does (Swarm, say), /livez is the question to put instead. http.client, since urllib would ask a
# proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LIPSIM_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["service"]
