"""Connections to Redis as RAG_REDIS_URL names it: one server, or the primary that Sentinels name.

``redis://[user:password@]host:6379/5``, ``rediss://…`` over TLS, ``unix://…``, and
``redis+sentinel://[user:password@]host:26379,host2:26379/service/5`` (``rediss+sentinel://…``):
the form that other libraries use, too. Options of redis-py follow as a query
(``ssl_ca_certs=/ca.pem``); ``sentinel_username`` and ``sentinel_password`` are for the Sentinels
alone.

After a fail-over each new connection asks the Sentinels anew, and an old primary that answers
READONLY is left. What the new primary never got is put right from the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from unjam.core.errors import SetupError

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool, Redis

SENTINELS = {"redis+sentinel": False, "rediss+sentinel": True}
"""Scheme → over TLS."""
SENTINEL_PORT = 26_379
ASK_S = 1.0
"""A Sentinel that is silent so long is passed over; the next one knows the primary as well."""

_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Where the primary of *service* is asked for. *rest* is the URL of such a primary, but for
    its host and port; *own_options* are for connections to the Sentinels themselves."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    database: str
    rest: str
    own_options: Mapping[str, Any]


def sentinels_of(url: str) -> Sentinels | None:
    """None: *url* names a server itself. Raises SetupError: no host or no service is named."""
    parts = urlsplit(url)
    tls = SENTINELS.get(parts.scheme)
    if tls is None:
        return None
    login, at, places = parts.netloc.rpartition("@")
    hosts = tuple(_host(place) for place in places.split(",") if place)
    service, _, database = parts.path.strip("/").partition("/")
    if not hosts or not service:
        raise SetupError(
            "RAG_REDIS_URL names no Sentinel, or not the service they watch",
            hint="redis+sentinel://host:26379,host2:26379/mymaster/5",
        )
    query = dict(parse_qsl(parts.query))
    own = {k.removeprefix("sentinel_"): query.pop(k) for k in list(query) if _is_own(k)}
    scheme = "rediss" if tls else "redis"
    database = database or "0"
    rest = urlunsplit((scheme, f"{login}{at}primary", f"/{database}", urlencode(query), ""))
    return Sentinels(hosts, service, database, rest, own)


def _is_own(option: str) -> bool:
    return option in ("sentinel_username", "sentinel_password")


def _host(place: str) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    return parts.hostname or "127.0.0.1", parts.port or SENTINEL_PORT


def pool_of(url: str, **options: Any) -> ConnectionPool:
    """A lazy pool of connections to *url*; *options* of ``redis.asyncio.Connection``.

    Raises:
        SetupError: the URL is none of those above.
    """
    from redis.asyncio import ConnectionPool

    found = sentinels_of(url)
    try:
        if found is not None:
            return _primary_pool(found, options)
        return ConnectionPool.from_url(url, **options)
    except ValueError as error:
        raise SetupError(
            f"RAG_REDIS_URL cannot be used: {error}",
            hint="redis://host:6379/5, rediss://…, or redis+sentinel://host:26379/mymaster/5",
        ) from None


def client_of(url: str, **options: Any) -> Redis:
    """A client with a pool of its own; ``aclose`` ends both."""
    from redis.asyncio import Redis

    return Redis.from_pool(pool_of(url, **options))


def _primary_pool(found: Sentinels, options: Mapping[str, Any]) -> ConnectionPool:
    from redis.asyncio import SSLConnection
    from redis.asyncio.connection import parse_url
    from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    class PrimaryPool(SentinelConnectionPool):
        async def aclose(self) -> None:
            await super().aclose()
            await self.sentinel_manager.aclose()

    named: dict[str, Any] = dict(parse_url(found.rest))
    named.pop("host", None)
    tls = named.pop("connection_class", None) is SSLConnection
    own = {k: v for k, v in named.items() if k.startswith("ssl_")}
    manager = Sentinel(
        found.hosts,
        sentinel_kwargs={
            "socket_connect_timeout": ASK_S,
            "socket_timeout": ASK_S,
            "retry": Retry(NoBackoff(), 0),
            "ssl": tls,
            **own,
            **found.own_options,
        },
    )
    return PrimaryPool(found.service, manager, ssl=tls, **{**options, **named})


def shown_place(url: str) -> str:
    """host:port of the server, or the service and who watches it; no password."""
    found = sentinels_of(url)
    if found is not None:
        return f"{found.service} ({', '.join(f'{h}:{p}' for h, p in found.hosts)})"
    place = urlsplit(url)
    return f"{place.hostname or 'localhost'}:{place.port or 6379}"


def url_of(pool: Any) -> str:
    """The URL that leads where *pool* leads: a connection pool that somebody else opened with
    redis-py, blocking or not."""
    kwargs: Mapping[str, Any] = pool.connection_kwargs
    user, password = kwargs.get("username") or "", kwargs.get("password") or ""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    database = kwargs.get("db") or 0
    if kwargs.get("path"):
        return f"unix://{login}{kwargs['path']}?db={database}"
    tls = "SSL" in getattr(pool.connection_class, "__name__", "")
    options = {k: str(kwargs[k]) for k in _TLS_OPTIONS if tls and kwargs.get(k)}
    if kwargs.get("ssl_check_hostname") is False and tls:
        options["ssl_check_hostname"] = "false"
    scheme, path = "rediss" if tls else "redis", f"/{database}"
    manager = getattr(pool, "sentinel_manager", None)
    if manager is None:
        place = f"{kwargs.get('host', '127.0.0.1')}:{kwargs.get('port', 6379)}"
    else:
        asked = [s.connection_pool.connection_kwargs for s in manager.sentinels]
        place = ",".join(f"{a['host']}:{a['port']}" for a in asked)
        scheme, path = f"{scheme}+sentinel", f"/{pool.service_name}{path}"
        for name in ("username", "password"):
            if asked[0].get(name):
                options[f"sentinel_{name}"] = asked[0][name]
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{login}{place}{path}{query}"
