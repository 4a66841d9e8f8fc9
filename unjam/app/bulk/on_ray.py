"""The engine of a Ray cluster, or of a Ray that is started here.

A pool of actors of Ray Data reads the parts and registers them; each worker is an actor of its own
that Ray starts again when it dies. What the ledger knows counts: Ray loses nothing by being killed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Any, TypeVar

from unjam.app.bulk.local import GRACE_S, LANES
from unjam.app.bulk.register import Registered, Registrar
from unjam.app.bulk.run import BulkOptions
from unjam.app.bulk.texts import Reading, Unfit
from unjam.app.house import found
from unjam.app.run_worker import work_with
from unjam.app.services import Services, open_services
from unjam.core.errors import DependencyDown, SetupError
from unjam.observe import words
from unjam.observe.logs import configure_logging
from unjam.settings import Settings
from unjam.stores.bulk_source import Part

T = TypeVar("T")

LEDGER_AGAIN_S = 2.0

STOPPED_S = 1.0
"""How often a registrar asks whether it shall stop."""

CPUS_A_WORKER = 0.5
CPUS_A_REGISTRAR = 0.5
"""Shares of a CPU, for Ray's placement only: half of a worker's time goes to waiting for answers,
and a parsing child of its own takes the other half."""

STORE_BYTES = 128 * 1_048_576
"""Ray's object store when it is started here: names of parts and ids pass through it, no texts."""


BLOCK_BYTES = 1024
"""Each answer is a block of its own: else Ray Data keeps them back until a part is read whole."""


def ray_module() -> Any:
    """Raises SetupError: the extra is not installed."""
    # Ray would tell its makers how it is used.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise SetupError(
            f"the engine ray needs more packages: {error.name or error} is missing",
            hint="Install them with: pip install 'unjam[ray]'",
        ) from None
    for name in ("ray", "ray.data"):  # its plans and progress; ours are told already
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


class RayEngine:
    """Raises SetupError: Ray is not installed, or does not answer."""

    def __init__(
        self, services: Services, options: BulkOptions, say: Callable[[str], None]
    ) -> None:
        self._settings = services.settings
        self._options = options
        self._say = say
        self._ray = ray_module()
        self._ours = False
        self._workers: list[Any] = []
        self._serving: list[Any] = []
        self._thread = ThreadPoolExecutor(1, "ray data")
        self._reading: Future[dict[str, Any] | None] | None = None

    async def __aenter__(self) -> RayEngine:
        await asyncio.to_thread(self._connect)
        actor: Any = self._ray.remote(
            num_cpus=CPUS_A_WORKER,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy="SPREAD",
        )(RayWorker)
        for _ in range(self._options.workers):
            worker = actor.remote(dict(_told(self._settings)))
            self._workers.append(worker)
            self._serving.append(worker.serve.remote(self._options.share_percent))
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            asks = [w.stop.remote() for w in self._workers]
            await asyncio.to_thread(
                self._ray.wait, [*asks, *self._serving], num_returns=1, timeout=1.0
            )
            await asyncio.to_thread(
                self._ray.wait, self._serving, num_returns=len(self._serving), timeout=GRACE_S
            )
            if self._reading is not None:  # Ray crashes when it is shut down under a reader
                await asyncio.to_thread(wait, [self._reading], GRACE_S)
            self._thread.shutdown(wait=False)
        finally:
            await asyncio.to_thread(self._disconnect)

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
        try:
            if self._options.address:
                self._ray.init(address=self._options.address, **quiet)
            else:
                self._ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    **quiet,
                )
        except Exception as error:
            raise SetupError(
                f"Ray does not start or answer: {str(error).splitlines()[0][:300]}",
                hint="Check --address and `ray status`.",
            ) from error
        self._ours = True

    def _disconnect(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker)
        if self._ours:
            self._ray.shutdown()

    def failed(self) -> str:
        ended, _ = self._ray.wait(self._serving, num_returns=len(self._serving), timeout=0)
        if len(ended) < len(self._serving):
            return ""
        try:
            self._ray.get(ended)
        except Exception as error:
            return str(error).strip().splitlines()[-1][:300]
        return "all of them ended"

    def registered(self, parts: list[Part]) -> AsyncGenerator[Registered]:
        return self._registered(parts)

    async def _registered(self, parts: list[Part]) -> AsyncGenerator[Registered]:
        if not parts:
            return
        rows = _rows(self._ray, parts, self._options, self._settings, self._workers)
        while True:
            self._reading = self._thread.submit(_next, rows)
            row = await asyncio.wrap_future(self._reading)
            if row is None:
                return
            raw = json.loads(row["registered"])
            raw["unfit"] = [Unfit(**u) for u in raw["unfit"]]
            some = Registered(**raw)
            yield some


def _rows(
    ray: Any, parts: list[Part], options: BulkOptions, settings: Settings, workers: list[Any]
) -> Iterator[dict[str, Any]]:
    """A lazy pipeline of Ray Data: parts → what became of their items."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    registrars = max(1, min(options.workers, len(parts)))
    dataset = ray.data.from_items(
        [{"part": json.dumps(asdict(p))} for p in parts],
        override_num_blocks=min(len(parts), 1000),
    ).map_batches(
        RayRegistrar,
        fn_constructor_args=(options.reading, dict(_told(settings)), workers[0]),
        batch_size=1,
        batch_format="numpy",
        num_cpus=CPUS_A_REGISTRAR,
        compute=ray.data.ActorPoolStrategy(size=registrars),
    )
    return iter(dataset.iter_rows())


def _next(rows: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    return next(rows, None)


def _told(settings: Settings) -> Iterator[tuple[str, str]]:
    """What each process is told; secrets it finds in its own host's environment."""
    yield "RAG_DATA_DIR", str(settings.data_dir)
    yield "RAG_LOG_DIR", str(settings.log_dir)


async def _open(told: dict[str, str]) -> Services:
    for name, value in told.items():
        os.environ.setdefault(name, value)
    settings = found(Settings())  # type: ignore[call-arg]
    while True:
        try:
            return await open_services(settings, role="worker")
        except DependencyDown as error:
            words.dependency_lost(error.code, error.detail)
            await asyncio.sleep(LEDGER_AGAIN_S)


class RayWorker:
    """The actor: an ordinary worker of the lanes of the back-fill, with leases of its own."""

    def __init__(self, told: dict[str, str]) -> None:
        self._told = told
        self._stopping = asyncio.Event()

    async def serve(self, share_percent: int) -> int:
        """Until ``stop``; 0. A restarted actor is asked again by Ray."""
        services = await _open(self._told)
        configure_logging(services.settings, process="worker")
        return await work_with(services, LANES, None, share_percent, self._stopping)

    async def stop(self) -> None:
        self._stopping.set()

    async def stopped(self) -> bool:
        return self._stopping.is_set()


class RayRegistrar:
    """The actor of Ray Data's pool: one part a call, its answers as they come. Once *worker* was
    told to stop, the rest of the parts is left alone."""

    def __init__(self, reading: Reading, told: dict[str, str], worker: Any) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="registrar", daemon=True).start()
        self._worker = worker
        self._ray = ray_module()
        services = self._begin(_open(told)).result()
        self._registrar = Registrar(services, reading)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
        raw = json.loads(str(batch["part"][0]))
        found = self._registrar.register(Part(raw["kind"], tuple(raw["names"])))
        while (some := self._patiently(found)) is not None:
            yield {"registered": [json.dumps(asdict(some))]}
        self._begin(self._registrar.close()).result()  # the doorbell rings for the last, too

    def _patiently(self, found: AsyncGenerator[Registered]) -> Registered | None:
        """The next answer; None: there is none, or all shall stop."""
        answer = self._begin(_first(found))
        while not self._stopped():
            if wait([answer], STOPPED_S).done:
                return answer.result()
        answer.cancel()
        return None

    def _stopped(self) -> bool:
        try:
            return self._ray.get(self._worker.stopped.remote(), timeout=STOPPED_S)
        except self._ray.exceptions.RayError:  # killed, and not back yet
            return False

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


async def _first(found: AsyncGenerator[Registered]) -> Registered | None:
    return await anext(found, None)
