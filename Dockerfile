# The command cclnet with its pipeline, for a CPU. It has not been built by this project's tests.
#   docker build --tag cclnet .
#   docker run --rm --volume "$PWD:/project" cclnet check photos
#   docker run --rm --volume "$PWD:/project" --entrypoint dvc --workdir /project/my-project cclnet repro
FROM python:3.13-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE dvc.yaml params.yaml ./
COPY .dvc/plots .dvc/plots
COPY stages stages
COPY cclnet cclnet
RUN uv pip install --system --no-cache --torch-backend cpu ".[pipeline,timm,onnx]"
WORKDIR /project
ENTRYPOINT ["cclnet"]
