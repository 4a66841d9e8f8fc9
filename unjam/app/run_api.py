"""``unjam api``: the HTTP servers, until SIGTERM."""

from __future__ import annotations

from unjam.app.house import found
from unjam.app.services import open_services
from unjam.observe.logs import configure_logging
from unjam.settings import Settings


def main(
    settings: Settings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8002,
    dashboard_port: int = 9181,
) -> int:
    """Blocks until SIGTERM; 0."""
    settings = found(settings or Settings())  # type: ignore[call-arg]
    configure_logging(settings, process="api")
    import uvloop

    from unjam.web.server import serve

    return uvloop.run(
        serve(lambda: open_services(settings, role="api"), host, port, dashboard_port)
    )
