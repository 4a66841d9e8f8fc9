"""``unjam up``: the whole system in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from unjam.app.house import without_password
from unjam.app.services import house_of, ledger_url, open_ledger
from unjam.app.vector_stores import check_vectors
from unjam.core.errors import DependencyDown, SetupError
from unjam.observe.logs import configure_logging
from unjam.pipeline.process_title import set_title
from unjam.queue.rq_queue import RqQueue
from unjam.settings import Settings
from unjam.stores.ledger import SqlLedger
from unjam.worker.children import Command
from unjam.worker.embedded import ServerPlan, plan_chroma, plan_valkey
from unjam.worker.exits import follow_exits
from unjam.worker.remedies import Remedies
from unjam.worker.supervisor import ChildSpec, Happening, Supervisor, Tier

READY_WITHIN_S = 60.0
LEDGER_AGAIN_S = 2.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class UpOptions:
    """Ports may be 0 for any free one."""

    workers: int
    host: str
    port: int
    dashboard_port: int


def main(
    settings: Settings,
    *,
    workers: int = 2,
    host: str = "127.0.0.1",
    port: int = 8002,
    dashboard_port: int = 9181,
) -> int:
    """Blocks until everything has stopped in order; 0.

    Raises:
        SetupError: a port is taken, another ``unjam up`` holds the data folder, or a server does
            not come up.
    """
    configure_logging(settings, process="up")
    set_title("unjam up")
    return asyncio.run(_main(settings, UpOptions(workers, host, port, dashboard_port)))


async def _main(settings: Settings, options: UpOptions) -> int:
    began = time.monotonic()
    if settings.vectors_url:
        check_vectors(settings.vectors_url)
    async with Supervisor(settings.data_dir, settings.log_dir, _listener(_say)) as supervisor:
        # After the lock: a second run is told so, and a killed run's API is gone from its port.
        options = replace(
            options,
            port=_port(options.host, options.port, "--port"),
            dashboard_port=_port(options.host, options.dashboard_port, "--dashboard-port"),
        )
        plans = await _plans(settings)
        urls = {f"{_KIND[p.name]}_url": p.url for p in plans}
        settings = settings.model_copy(update=urls)
        for plan in plans:
            if plan.moved:
                _say(f"port {plan.wanted_port} is taken: {plan.name} is on {plan.port}")
        house_written = asyncio.create_task(_write_house(settings, options))
        try:
            await supervisor.start([ChildSpec.of_server(p) for p in plans])
        finally:
            await house_written
        await _announce(settings)
        await supervisor.start(_specs(settings, options))
        if options.workers:
            env = _environment(settings)
            supervisor.keep_spare(Command.python("unjam.app.spare", title="unjam spare", env=env))
        _say(_where(settings, options))
        asyncio.get_running_loop().create_task(_say_when_ready(options, began))
        ear = asyncio.create_task(_hear(settings, options, supervisor))
        try:
            await supervisor.run()
        finally:
            ear.cancel()
            await asyncio.gather(ear, return_exceptions=True)
    _say("stopped in order; every accepted document is safe in the ledger")
    return 0


_KIND = {"valkey": "redis", "chroma": "chroma"}


async def _plans(settings: Settings) -> list[ServerPlan]:
    """The servers that nobody else provides."""
    wanted = []
    if settings.redis_url is None:
        wanted.append(plan_valkey(settings.data_dir))
    if settings.vectors_url is None:
        wanted.append(plan_chroma(settings.data_dir))
    return list(await asyncio.gather(*wanted))


async def _write_house(settings: Settings, options: UpOptions) -> None:
    """Create or migrate the ledger before anybody uses it; note where everything is."""
    ledger = await open_ledger(settings)
    house = replace(
        house_of(settings, ledger.id),
        api_url=f"http://{_reachable(options.host)}:{options.port}",
        dashboard_url=f"http://{_reachable(options.host)}:{options.dashboard_port}",
    )
    await ledger.close()
    house.write(settings.data_dir)


async def _hear(settings: Settings, options: UpOptions, supervisor: Supervisor) -> None:
    """Carry out what the watchdog asks of this host."""
    ledger: SqlLedger | None = None
    try:
        while ledger is None:
            try:
                ledger = await open_ledger(settings)
            except DependencyDown:
                await asyncio.sleep(LEDGER_AGAIN_S)
        remedies = Remedies(
            supervisor,
            ledger,
            lambda n: _worker_spec(settings, n),
            settings.allowed_restarts,
        )
        await asyncio.gather(remedies.follow(), follow_exits(supervisor, ledger))
    finally:
        if ledger is not None:
            await ledger.close()


async def _announce(settings: Settings) -> None:
    """``rag:house``, so that stock workers find the rest; the watchdog keeps it there."""
    from unjam.app.house import House

    house = House.read(settings.data_dir)
    queue = RqQueue(settings.redis_url or "")
    try:
        if house is not None:
            await queue.write_house(house.to_mapping())
    except DependencyDown as error:
        _say(f"Redis does not answer yet: {error.detail}; it is tried again")
    finally:
        await queue.close()


def _child(
    settings: Settings, name: str, title: str, tier: Tier, log: str, argv: Sequence[str]
) -> ChildSpec:
    module, *rest = argv
    command = Command.python(module, rest, title=title, env=_environment(settings))
    return ChildSpec(name, command, tier, log, from_spare=tier is Tier.WORKER)


def _environment(settings: Settings) -> dict[str, str]:
    return {
        "RAG_DATA_DIR": str(settings.data_dir),
        "RAG_LOG_DIR": str(settings.log_dir),
        "RAG_REDIS_URL": settings.redis_url or "",
        "RAG_CHROMA_URL": settings.chroma_url or "",
    }


def _worker_spec(settings: Settings, n: int) -> ChildSpec:
    """Worker number *n*, 1 for the first."""
    title = f"rq worker rag_processing (unjam worker {n})"
    log = "rag-worker.log" if n == 1 else f"rag-worker{n}.log"
    argv = ["unjam.cli.main", "worker"]
    return _child(settings, f"worker-{n}", title, Tier.WORKER, log, argv)


def _specs(settings: Settings, options: UpOptions) -> list[ChildSpec]:
    def child(name: str, title: str, tier: Tier, log: str, argv: Sequence[str]) -> ChildSpec:
        return _child(settings, name, title, tier, log, argv)

    run = "unjam.cli.main"
    serve = ["unjam.web.main", "--host", options.host, "--port", str(options.port)]
    serve += ["--dashboard-port", str(options.dashboard_port)]
    specs = [
        child("api", "unjam api", Tier.API, "api.log", serve),
        child("watchdog", "unjam watchdog", Tier.WATCHDOG, "watchdog.log", [run, "watchdog"]),
    ]
    return specs + [_worker_spec(settings, n) for n in range(1, options.workers + 1)]


async def _say_when_ready(options: UpOptions, began: float) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if await _is_ready(options):
            _say(f"ready for documents after {time.monotonic() - began:.1f} s")
            return
        await asyncio.sleep(0.05)
    _say(f"not ready after {READY_WITHIN_S:.0f} s; see GET /readyz and the logs")


async def _is_ready(options: UpOptions) -> bool:
    host = _reachable(options.host)
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(host, options.port)
            request = f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            status = await reader.readline()
            writer.close()
            return b" 200 " in status
    except (OSError, TimeoutError):
        return False


def _where(settings: Settings, options: UpOptions) -> str:
    base = f"http://{_reachable(options.host)}"
    leaves = "no text leaves this machine"
    if not settings.uses_local_model:
        leaves = f"text is sent to {without_password(settings.openai_base_url)}"
    rows = (
        ("API", f"{base}:{options.port}/api/rag  (docs: {base}:{options.port}/docs)"),
        ("operators", f"{base}:{options.dashboard_port}"),
        ("Redis", without_password(settings.redis_url or "")),
        (settings.vector_store, without_password(settings.vectors_url or "")),
        ("ledger", without_password(ledger_url(settings))),
        ("data", str(settings.data_dir)),
        ("logs", str(settings.log_dir)),
        ("embedding", f"{settings.model}; {leaves}"),
        ("workers", str(options.workers)),
    )
    return "unjam is starting\n" + "\n".join(f"  {name:<10} {value}" for name, value in rows)


def _listener(say: Say) -> Callable[[Happening], None]:
    def listen(happening: Happening) -> None:
        if happening.what == "died":
            say(f"{happening.name} ({happening.pid}) died: {happening.how}; restarting")
        elif happening.what == "killed":
            say(f"{happening.name} did not stop in time and was killed")

    return listen


def _port(host: str, port: int, option: str) -> int:
    """*port*, or a free one for 0.

    Raises:
        SetupError: somebody listens there; names port and option.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SetupError(
                f"port {port} on {host} cannot be used: {error.strerror or error}",
                hint=f"Stop what listens there, or choose another port with {option}.",
            ) from None
        return probe.getsockname()[1]


def _reachable(host: str) -> str:
    """An address under which a listener on *host* is reached from here."""
    return "127.0.0.1" if host in ("0.0.0.0", "::", *LOOPBACK) else host


def _say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)  # noqa: T201 - the command's own output
