# The server with one bundle, for linux/amd64 and linux/arm64. docs/server.md, "In a container".
#
#     docker build --build-arg BUNDLE=bundles/hart-emoji-int8 --tag hart-edge .
#     docker run --read-only --tmpfs /tmp --publish 127.0.0.1:8000:8000 \
#         --mount type=bind,source=$PWD/key,target=/run/secrets/key,readonly hart-edge

FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/hart-edge \
    && /opt/hart-edge/bin/pip install --no-cache-dir --disable-pip-version-check '.[cpu,serve]'

FROM python:3.11-slim
ARG BUNDLE=bundles/hart-emoji-int8
COPY --from=build /opt/hart-edge /opt/hart-edge
COPY --chown=65534:65534 ${BUNDLE} /bundle
# Nothing is written: no bytecode, no cache, no home.
ENV PATH=/opt/hart-edge/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65534:65534
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["hart-edge", "serve", "/bundle", "--host", "0.0.0.0"]
CMD ["--api-key-file", "/run/secrets/key"]
