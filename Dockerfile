# syntax=docker/dockerfile:1
# The server, without a model: models are kept in the volume /data and fetched into it by
# `docker compose run --rm server models pull smollm2`, or by the first start.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY npc_server ./npc_server
COPY personas ./personas
COPY scenes ./scenes
# EXTRA=cuda takes ctransformers' CUDA libraries along.
ARG EXTRA=""
RUN python -m venv /opt/npc \
    && /opt/npc/bin/pip install --no-cache-dir -c constraints.txt ".${EXTRA:+[$EXTRA]}"

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 npc \
    && install -d -o npc -g npc /data
COPY --from=build /opt/npc /opt/npc
ENV PATH=/opt/npc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NPC_DATA_DIR=/data \
    NPC_LOG_FORMAT=json
USER npc
VOLUME /data
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('NPC_PORT', '8765')}/healthz\", timeout=2)"]
ENTRYPOINT ["npc-server"]
CMD ["serve"]
