"""The two servers of ``unjam api``: the API (8002) and the operators' page (9181), in one loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import unjam
from unjam.core.errors import SetupError
from unjam.observe.forecast import Forecaster
from unjam.web import admin, health, pages, problems, public
from unjam.web.auth import Gatekeeper, is_loopback, require_tokens
from unjam.web.dashboard import routes as dashboard
from unjam.web.house import Binding, House
from unjam.web.schemas import ProblemOut
from unjam.web.sse import Tail

_log = logging.getLogger("unjam.api")

GRACE_S = 20
"""Requests under way at SIGTERM may take this long."""
LINGER_S = 0.5
"""After SIGTERM the ports stay open so long, and each answer ends its connection: whoever had
connected or was about to ask again is served, not cut off."""
_OPEN_FILES = 65_536


def create_app(house: House, binding: Binding | None = None) -> FastAPI:
    """The API on 8002: public, operators' and health routes, metrics and documentation."""
    binding = binding or Binding()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        await app.state.tail.close()

    app = _bare_app("unjam", lifespan)
    app.state.house = house
    app.state.binding = binding
    app.state.tail = Tail(house.ledger)
    app.state.forecaster = Forecaster(house.ledger, house.queue)
    app.add_middleware(Gatekeeper, settings=house.settings, binding=binding)
    for router in (public.router, admin.router, health.router, pages.api_router):
        app.include_router(router)
    app.openapi = lambda: _openapi(app)
    return app


def create_dashboard_app(house: House, binding: Binding | None = None) -> FastAPI:
    """The operators' dashboard on 9181 and ``GET /api/queues``; without the operators' token it
    only shows."""
    binding = binding or Binding(port=9181)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        await app.state.board.close()

    app = _bare_app("unjam dashboard", lifespan)
    app.state.house = house
    app.state.binding = binding
    sessions = dashboard.prepare(app, house, binding)
    app.add_middleware(
        Gatekeeper,
        settings=house.settings,
        binding=binding,
        signed_in=lambda headers: bool(sessions.role_of(headers)),
        sign_in_page=dashboard.SIGN_IN,
    )
    app.include_router(health.router)
    app.include_router(dashboard.router)
    return app


def _bare_app(title: str, lifespan: Any) -> FastAPI:
    # FastAPI's own documentation pages load scripts from a CDN; ours is in ``pages``.
    app = FastAPI(
        title=title,
        version=unjam.__version__,
        description="Documents in, searchable chunks out. Errors are problem documents (RFC 9457).",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
    )
    problems.install(app)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1, with the schema of problem documents and the two kinds of token."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {})["ProblemOut"] = ProblemOut.model_json_schema()
        components["securitySchemes"] = {
            "api": {"type": "http", "scheme": "bearer", "description": "RAG_API_TOKEN"},
            "operator": {"type": "http", "scheme": "bearer", "description": "ADMIN_TOKEN"},
        }
        for path, operations in schema["paths"].items():
            scheme = "operator" if path.startswith(admin.PREFIX) else "api"
            needed: list[dict[str, list[str]]] = [{scheme: []}]
            for operation in operations.values():
                operation["security"] = needed if scheme == "operator" else [{}, *needed]
                _drop_standard_errors(operation)
                if scheme == "operator":
                    _add_problems(operation)
        app.openapi_schema = schema
    return app.openapi_schema


def _drop_standard_errors(operation: dict[str, Any]) -> None:
    """FastAPI lists its own 422 body, which no route of ours ever sends."""
    fault = operation["responses"].get("422", {})
    if "HTTPValidationError" in str(fault):
        del operation["responses"]["422"]


def _add_problems(operation: dict[str, Any]) -> None:
    """What any of the operators' routes may answer."""
    for code, said in problems.described(400, 401, 403, 404, 409, 413, 422, 503).items():
        operation["responses"].setdefault(str(code), said)


# -- serving ----------------------------------------------------------------------------------
class _Farewell:
    """Once *closing* is set, each answer says that its connection ends."""

    def __init__(self, app: ASGIApp, closing: asyncio.Event) -> None:
        self._app = app
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._closing.is_set():
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, last)


class _Server(uvicorn.Server):
    """Two of them share a process: signals are handled once, in :func:`serve`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def bind(host: str, port: int, option: str) -> socket.socket:
    """A listening socket.

    Raises:
        SetupError: the port is taken or the address is not ours; names port and option.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise SetupError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            code="port_taken",
            hint=f"Choose another port with {option}, or stop what listens there.",
        ) from None
    sock.setblocking(False)
    return sock


async def serve(
    services_factory: Callable[[], Awaitable[House]],
    host: str = "127.0.0.1",
    port: int = 8002,
    dashboard_port: int = 9181,
    *,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Run both servers until SIGTERM or SIGINT; 0. Ports of 0 take free ones.

    Requests under way are answered and event streams ended before it returns.

    Raises:
        SetupError: a port is taken, or *host* is reachable from outside and no token is set.
    """
    with contextlib.ExitStack() as sockets:
        # Ports first: a taken one should be told at once, not after the ledger was opened.
        api_socket = sockets.enter_context(bind(host, port, "--port"))
        page_socket = sockets.enter_context(bind(host, dashboard_port, "--dashboard-port"))
        _raise_open_files()
        house = await services_factory()
        try:
            require_tokens(house.settings, host)
            exposed = not is_loopback(host)
            closing = asyncio.Event()
            servers = [
                _server(make(house, Binding(host, _port_of(sock), exposed, closing)), closing)
                for make, sock in (
                    (create_app, api_socket),
                    (create_dashboard_app, page_socket),
                )
            ]
            await _run(servers, [api_socket, page_socket], closing, on_ready)
        finally:
            await house.close()
    return 0


def _server(app: ASGIApp, closing: asyncio.Event | None = None) -> _Server:
    config = uvicorn.Config(
        _Farewell(app, closing or asyncio.Event()),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=30,
        http="httptools",
        ws="none",
        lifespan="on",
    )
    return _Server(config)


async def _run(
    servers: list[_Server],
    sockets: list[socket.socket],
    closing: asyncio.Event,
    on_ready: Callable[[], None] | None,
) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        closing.set()  # first: an open event stream would hold the shutdown up
        for server in servers:
            server.should_exit = True

    def say_goodbye() -> None:
        if closing.is_set():  # a second signal
            stop()
        closing.set()
        loop.call_later(LINGER_S, stop)

    handled = (signal.SIGTERM, signal.SIGINT)
    for signum in handled:
        loop.add_signal_handler(signum, say_goodbye)
    try:
        tasks = [
            asyncio.create_task(server.serve(sockets=[sock]))
            for server, sock in zip(servers, sockets, strict=True)
        ]
        up = asyncio.gather(*(s.up.wait() for s in servers))
        await asyncio.wait({up, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for sock in sockets:
            _log.info("listening on http://%s:%d", *sock.getsockname()[:2])
        if on_ready is not None and up.done():
            on_ready()
        up.cancel()
        # One that ends takes the other along: half a surface is no surface.
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        stop()
        await asyncio.gather(*tasks)
    finally:
        for signum in handled:
            loop.remove_signal_handler(signum)


def _port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def _raise_open_files() -> None:
    """Each upload and each stream holds a descriptor; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
