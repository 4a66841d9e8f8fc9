"""Every Redis key that unjam reads or writes, once. RQ's own layout is that of RQ 3.0."""

from __future__ import annotations

# -- RQ's ----------------------------------------------------------------------------------
QUEUES = "rq:queues"
"""Set of the keys (not names) of all queues."""

WORKERS = "rq:workers"
"""Set of the keys of all workers."""

SUSPENDED = "rq:suspended"
"""Exists while ``rq suspend`` holds."""

_LANE = "rq:queue:"
_JOB = "rq:job:"


def lane(name: str) -> str:
    """List of the job ids that wait in a lane; head = next."""
    return f"{_LANE}{name}"


def lane_name(key: str) -> str:
    """The lane of a key made by :func:`lane`."""
    return key.removeprefix(_LANE)


JOBS = _JOB
"""Before a job's id; scripts that meet ids in a lane need it."""


def turns(lane_name: str) -> str:
    """Hash: user → the turn of the last job of his that entered the lane."""
    return f"rag:turns:{lane_name}"


def intermediate(name: str) -> str:
    """List of the ids that were taken from a lane and are not started yet."""
    return f"{_LANE}{name}:intermediate"


def job(job_id: str) -> str:
    """Hash of one job."""
    return f"{_JOB}{job_id}"


def wip(name: str) -> str:
    """Sorted set of ``<job>:<execution>``, scored by expiry: RQ's started registry."""
    return f"rq:wip:{name}"


def failed(name: str) -> str:
    """Sorted set of job ids, scored by expiry (−1: never): RQ's failed registry."""
    return f"rq:failed:{name}"


def finished(name: str) -> str:
    """Sorted set of job ids: RQ's finished registry."""
    return f"rq:finished:{name}"


def scheduled(name: str) -> str:
    """Sorted set of job ids, scored by due time: RQ's scheduled registry."""
    return f"rq:scheduled:{name}"


def deferred(name: str) -> str:
    """Sorted set of job ids: RQ's deferred registry."""
    return f"rq:deferred:{name}"


def worker(name: str) -> str:
    """Hash of one worker."""
    return f"rq:worker:{name}"


def cleaning(name: str) -> str:
    """Lock of whoever cleans a lane's registries."""
    return f"rq:clean_registries:{name}"


def scheduler(name: str) -> str:
    """Lock of the scheduler of a lane; holds the name of its worker."""
    return f"rq:scheduler-lock:{name}"


OURS = "unjam"
"""Field of a worker's hash that only our own workers have: the program's version."""


def lane_workers(name: str) -> str:
    """Set of the keys of the workers that serve a lane."""
    return f"rq:workers:{name}"


# -- ours ----------------------------------------------------------------------------------
TAKEN = "rag:taken"
"""Hash: job id in somebody's hand, not started yet → ``<taken at (Unix s)> <lane> <worker>``."""

PARKED = "rag:parked"
"""Hash: document id → the job id under which it stands in ``rag_dlq``."""

PAUSED = "rag:paused"
"""Set of the lanes that operators paused, "*" for all: a copy of the ledger's, for display."""

OUR_SUSPENSION = "unjam"
"""Value of ``rq:suspended`` when it stands for a pause of all lanes; ``rq suspend`` writes 1."""

HOUSE = "rag:house"
"""Hash: where ledger, data folder and servers are; no secrets."""

EPOCH = "rag:epoch"
"""Counter that tells a Redis that lost its data from one that did not."""

EPOCH_BEGUN = "rag:epoch:begun"
"""Run and evictions of the Redis in which the audit under this epoch began …"""

EPOCH_WHOLE = "rag:epoch:whole"
"""… and the same once it came to its end."""

FIGURES = "rag:stats:mirrored"
"""Stands as long as the statistics do: when it is gone, Redis lost them."""
