# docker build -t thaw .                                                      with CUDA, as PyTorch's wheels bring it: about 9 GB
# docker build -t thaw --build-arg TORCH_INDEX=<PyTorch's index of CPU wheels> .   without: about 2 GB
# docker run --gpus all --shm-size 2g -v $PWD/photographs:/data -v $PWD/runs:/thaw/runs thaw \
#     thaw-train data=image_folder data.root=/data backbone=timm backbone.name=resnet18
# Another base (an image of your cluster, one with CUDA's compilers) needs Python 3.10 or newer: --build-arg BASE=...
ARG BASE=python:3.12-slim
FROM ${BASE}

ARG TORCH_INDEX=""
ARG EXTRAS="timm,text,export,report"
WORKDIR /thaw
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY src src
RUN if [ -n "${TORCH_INDEX}" ]; then pip install --no-cache-dir -c constraints.txt --index-url "${TORCH_INDEX}" torch torchvision; fi \
    && pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"
ENV THAW_CACHE=/thaw/cache
CMD ["thaw-train"]
