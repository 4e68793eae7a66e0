# Mask R-CNN on NVIDIA's PyTorch image. docs/docker.md tells how to use it.
#
#   bash scripts/docker/build.sh
#
# Stages: base, the system and what Python needs; clearml and ymir, for those platforms; harness, the last one and so the
# default, the program with its kernels compiled.
#
# 26.07 holds PyTorch 2.13, which the tests run on; another one needs PyTorch 2.11 or later.
ARG FROM_IMAGE_NAME=nvcr.io/nvidia/pytorch:26.07-py3

FROM ${FROM_IMAGE_NAME} AS base
# Mirrors: APT_MIRROR stands for the addresses of Ubuntu's and Debian's archives; pip reads the other two by itself.
ARG APT_MIRROR
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG TZ=Asia/Tokyo
ENV TZ=${TZ}
# An image has no system packages beside its own that pip could break; newer bases ask for this word.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
# Parsed annotations and downloaded weights; mount a folder here to keep them.
ENV XDG_CACHE_HOME=/cache
# No libGL: the headless OpenCV needs none. Versions are those of the base's release.
# hadolint ignore=DL3008
RUN if [ -n "${APT_MIRROR:-}" ]; then \
        find /etc/apt \( -name '*.list' -o -name '*.sources' \) -exec sed -i -E \
            "s#https?://((([a-z]{2}\.)?archive|security|ports)\.ubuntu\.com|(deb|security)\.debian\.org)#${APT_MIRROR}#" {} +; \
    fi \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git tzdata wget \
    && ln -sf "/usr/share/zoneinfo/${TZ}" /etc/localtime \
    && echo "${TZ}" >/etc/timezone \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml /workspace/dependencies/pyproject.toml
COPY docker/requirements.py /workspace/dependencies/docker/requirements.py
# NVIDIA's image brings an OpenCV of its own, which lies in the same folder as the headless one.
RUN python3 /workspace/dependencies/docker/requirements.py tensorboard >/workspace/dependencies/requirements.txt \
    && python3 -m pip uninstall -y opencv opencv-python \
    && python3 -m pip install --no-cache-dir -r /workspace/dependencies/requirements.txt "setuptools>=77" \
    && python3 -c "import cv2, torch"
COPY docker/healthcheck.sh /usr/local/bin/maskrcnn-health
RUN install -d -m 1777 /cache
HEALTHCHECK --interval=5m --timeout=30s --start-period=1m CMD ["maskrcnn-health"]

# For docker-compose and ClearML's agents: the code is mounted or cloned, so none is copied. docker/MaskRCNN is this stage.
FROM base AS clearml
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
WORKDIR /workspace/MaskRCNN
ENV PYTHONPATH=/workspace/MaskRCNN
RUN python3 -m pip install --no-cache-dir "clearml>=1.18" "clearml-agent>=1.9" "boto3>=1.34"

# The executor for YMIR, which trains, mines and infers: docs/ymir.md.
FROM base AS ymir
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG FORCE_CUDA=1
ARG CUDA_ARCHITECTURES
# For a YMIR that does not say which protocol it speaks; from 1.2.0 on it is the newer one.
ARG YMIR=1.1.0
ENV YMIR_VERSION=${YMIR}
# Weights to start from, for sites without a network: 0 leaves /weights empty; WEIGHTS_URL is a mirror.
ARG WEIGHTS=1
ARG WEIGHTS_URL
WORKDIR /app
COPY . .
RUN export FORCE_CUDA TORCH_CUDA_ARCH_LIST="${CUDA_ARCHITECTURES:-${TORCH_CUDA_ARCH_LIST:-}}" \
    && PIP_NO_CACHE_DIR=1 MASKRCNN_REQUIRE_EXT=1 bash scripts/setup.sh --extra tensorboard --extra onnx
RUN install -d -m 755 /weights \
    && if [ "${WEIGHTS}" != 0 ]; then WEIGHTS_URL="${WEIGHTS_URL:-}" bash download_weights.sh /weights; fi
RUN cp -r docker/ymir/img-man /img-man \
    && install -m 755 docker/ymir/start.sh /usr/bin/start.sh \
    && find /app /img-man /weights ! -perm -o=r -exec chmod a+rX {} +
# YMIR reads what "docker run IMAGE cat FILE" prints: the base's entry point would put a banner before it.
ENTRYPOINT []
CMD ["bash", "/usr/bin/start.sh"]

FROM base AS harness
ARG APT_MIRROR
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
# 0 where the base has no CUDA compiler. Architectures: for instance "8.0;9.0"; without it those of the base image.
ARG FORCE_CUDA=1
ARG CUDA_ARCHITECTURES
# The user that runs: root as published, or your own, so that what it writes is yours; docker run --user takes any.
ARG UID=0
ARG GID=0
ARG USER=root
ENV USER=${USER}
WORKDIR /workspace/object_detection
# fish and the servers: what scripts/docker/ starts in this container.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends fish \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m pip install --no-cache-dir "jupyterlab>=4.2" "mlflow>=3.1"
COPY . .
RUN export FORCE_CUDA TORCH_CUDA_ARCH_LIST="${CUDA_ARCHITECTURES:-${TORCH_CUDA_ARCH_LIST:-}}" \
    && PIP_NO_CACHE_DIR=1 MASKRCNN_REQUIRE_EXT=1 bash scripts/setup.sh --extra tensorboard
RUN install -d -m 1777 /results /datasets /datasets/data datasets results \
    && if [ "${UID}" != 0 ]; then \
        groupadd --non-unique --gid "${GID}" "${USER}" \
        && useradd --non-unique --no-log-init --create-home --uid "${UID}" --gid "${GID}" "${USER}"; \
    fi
# Everything is there: the scripts need not look. OMP_NUM_THREADS is as published, for one process a GPU. HOME: a place
# that a user without an entry in /etc/passwd can write to.
ENV SKIP_SETUP=1
ENV OMP_NUM_THREADS=1
ENV HOME=/cache
USER ${UID}:${GID}
CMD ["bash"]
