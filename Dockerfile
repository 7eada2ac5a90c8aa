# A server of bundles, for a processor or a GPU: docs/serve.md has the commands.
# RUN lines are targets of the Makefile, so that what is built here is what `make` builds anywhere (tests/test_dockerfile.py).
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION} AS build
# An index of PyTorch's own for one kind of device: builds for processors alone, or for one version of CUDA.
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /opt/phoropter
COPY Makefile pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN make runtime

FROM python:${PYTHON_VERSION}-slim
WORKDIR /opt/phoropter
COPY --from=build /opt/phoropter/.venv ./.venv
# Nothing is fetched at run time, and nothing is written but to /tmp.
ENV PATH=/opt/phoropter/.venv/bin:$PATH HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp PHOROPTER_CACHE=/tmp/phoropter
USER 65532:65532
EXPOSE 8360
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8360/ready', timeout=5)"]
ENTRYPOINT ["phoropter", "serve", "--host", "0.0.0.0", "--port", "8360", "--token-file", "/run/secrets/phoropter-token"]
CMD ["/bundle"]
