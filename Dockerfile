# The service with the shipped models: no torch, no build tools, no root.
#   docker build --build-arg DEVICE=cpu|cuda -t autoencoder-service .
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ARG DEVICE=cpu
WORKDIR /src
COPY requirements requirements
RUN python -m venv --without-pip /opt/venv && \
    pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
    --require-hashes --only-binary :all: --requirement requirements/${DEVICE}.txt
COPY pyproject.toml README.md ./
RUN python -m venv sbom && \
    sbom/bin/pip install --no-cache-dir --disable-pip-version-check \
    --require-hashes --only-binary :all: --requirement requirements/sbom.txt && \
    sbom/bin/cyclonedx-py environment --pyproject pyproject.toml \
    --output-file /sbom.cdx.json /opt/venv/bin/python

FROM ${PYTHON_IMAGE}
ARG DEVICE=cpu
LABEL org.opencontainers.image.title="Autoencoder service" \
    org.opencontainers.image.description="Encode, denoise and score images over HTTP" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
COPY --from=build /sbom.cdx.json /
COPY LICENSE NOTICE /
COPY models /models
WORKDIR /app
COPY bundle bundle
COPY service service
RUN /opt/venv/bin/python -m compileall -q bundle service
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AE_MODELS=/models \
    AE_HOST=0.0.0.0 \
    AE_OPEN_ACCESS=true \
    AE_PORT=8000 \
    AE_DEVICE=${DEVICE}
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['AE_PORT'])); \
c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
