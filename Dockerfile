# An image in which the commands of README.md run as they are written there, as an ordinary user.
#
#   docker build -t crossbench .                                   for the CPU
#   docker build -t crossbench:cuda --build-arg PIP_ARGS= .        with PyTorch's CUDA build
#
#   docker run --rm crossbench python -m crossbench.doctor
#   docker run --rm -v crossbench:/crossbench/outputs crossbench \
#         python -m crossbench -m backend=pytorch,onnx batch=32,96
#
# docs/configuration.md#docker has more: results in a folder, GPUs, the live page, a server.

FROM python:3.12-slim-bookworm

# backend=compiled needs a C++ compiler
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 crossbench \
    && install --directory --owner=crossbench --group=crossbench /crossbench /crossbench/outputs
WORKDIR /crossbench
USER 1000:1000

RUN python -m venv .venv
ENV PATH=/crossbench/.venv/bin:$PATH

COPY --chown=1000:1000 pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=1000:1000 conf conf
COPY --chown=1000:1000 hydra_plugins hydra_plugins
COPY --chown=1000:1000 crossbench crossbench

# Without PIP_ARGS, pip installs PyTorch's default build, which has CUDA (several GB)
ARG PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
ARG EXTRAS=onnx,openvino,hub,gpu,optuna
# hadolint ignore=SC2086
RUN python -m pip install --no-cache-dir $PIP_ARGS -c constraints.txt -e ".[$EXTRAS]"

VOLUME /crossbench/outputs
# The server, and the live page
EXPOSE 50051 8080
CMD ["python", "-m", "crossbench.doctor"]
