"""``python -m unjam.web.main``: the HTTP servers as a process, until SIGTERM.

``unjam api`` becomes this module: the command line and the web are rooms of one floor and do not
import each other.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from unjam.app.house import found
from unjam.app.opening import StoppedEarly, open_patiently
from unjam.core.errors import UnjamError
from unjam.observe.logs import configure_logging
from unjam.settings import Settings
from unjam.web.server import serve


def main() -> int:
    """0 after an orderly stop; 2 with one line when it cannot serve."""
    parser = argparse.ArgumentParser(prog="unjam api")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8002)
    parser.add_argument("--dashboard-port", type=int, default=9181)
    options = parser.parse_args()
    settings = found(Settings())  # type: ignore[call-arg]
    configure_logging(settings, process="api")
    import uvloop

    services = partial(open_patiently, settings, role="api")
    try:
        uvloop.run(serve(services, options.host, options.port, options.dashboard_port))
    except StoppedEarly:
        return 0
    except UnjamError as error:
        print(f"error: {error.detail}\nhint: {error.hint}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
