# The environment of `make setup` with the project in it.
#
#   docker build -t openimages-mmdet .
#   docker run --rm -it openimages-mmdet make demo
#
# For NVIDIA GPUs, with the CUDA of the torch build and the architectures of the cards:
#
#   docker build -t openimages-mmdet:cuda --build-arg BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04 \
#       --build-arg FORCE_CUDA=1 --build-arg TORCH_CUDA_ARCH_LIST="8.0 8.6 9.0" .
#   docker run --rm -it --gpus all --ipc host -v /path/to/openimages:/data openimages-mmdet:cuda
#
# TORCH_PIP_ARGS is handed to the call that installs torch, such as the index of its CPU builds.
ARG BASE=ubuntu:24.04
FROM ${BASE}

RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential git make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ARG FORCE_CUDA
ARG TORCH_CUDA_ARCH_LIST
ARG TORCH_PIP_ARGS
WORKDIR /workspace/openimages-mmdet
# What the set-up reads, first: a change of the code does not compile MMCV again.
COPY Makefile ./
COPY requirements requirements
COPY tools/setup_environment.py tools/precompiled_header_compiler.py tools/
RUN make setup && rm -rf /root/.cache
COPY . .
ENV PATH=/workspace/openimages-mmdet/.venv/bin:$PATH
