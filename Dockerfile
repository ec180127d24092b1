# One image for every headrace process: `docker run headrace stream`, `land`, `serve`, `apply`.
# The base needs Python 3.11 and nothing else; elsewhere a company's own hardened one is named here.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG UV_VERSION=0.13.9
# A serving host alone needs no more than "--extra serving".
ARG EXTRAS="--extra stream --extra batch --extra serving --extra formats --extra feast"
# What the base image trusts is trusted: a company's certificates are added there.
ENV UV_NATIVE_TLS=1 \
    UV_PROJECT_ENVIRONMENT=/opt/headrace UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
WORKDIR /src
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet --disable-pip-version-check uv==${UV_VERSION}
# The packages first: they change more rarely than the code, and this layer is then taken from the cache.
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --quiet --frozen --no-dev --no-install-project ${EXTRAS} --python "$(command -v python3)"
COPY schemas schemas
COPY features features
COPY stream stream
COPY batch batch
COPY serving serving
COPY headrace headrace
RUN /opt/uv/bin/uv sync --quiet --frozen --no-dev --no-editable ${EXTRAS} --python "$(command -v python3)"
# Other packages' tests, C headers and Feast's web page: 60 MB that no process here reads.
RUN cd /opt/headrace/lib/python3.11/site-packages \
    && find pandas numpy pyarrow ibis -depth -type d -name tests -exec rm -rf {} + \
    && rm -rf pyarrow/include numpy/_core/include feast/ui

FROM ${BASE_IMAGE}
# No rights: the process owns its home and nothing else.
RUN groupadd --gid 10001 headrace && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/headrace headrace \
    && install -d -o headrace -g headrace /var/lib/headrace
COPY --from=build /opt/headrace /opt/headrace
COPY --chown=root:root features/views /etc/headrace/definitions
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HEADRACE_HOME=/var/lib/headrace HEADRACE_DEFINITIONS=/etc/headrace/definitions
USER headrace
WORKDIR /var/lib/headrace
VOLUME /var/lib/headrace
ENTRYPOINT ["headrace"]
CMD ["--help"]
