"""RAG_REDIS_URL in all its forms: one server, over TLS with a certificate of our own, Sentinels."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.fixtures.tls import behind_tls
from unjam._redis import client_of, pool_of, sentinels_of, shown_place, url_of
from unjam.app.doctor import localised
from unjam.app.house import without_password
from unjam.core.errors import DependencyDown, SetupError
from unjam.embedding.pace import Rates
from unjam.embedding.shared_limiter import SharedLimiter
from unjam.queue.link import RedisLink
from unjam.queue.rq_queue import RqQueue
from unjam.settings import Settings
from unjam.worker.embedded import Server

WATCHED = "rediss+sentinel://ann:p%40ss@a:1,b/mymaster/5?sentinel_password=se&ssl_ca_certs=/ca.pem"


def test_sentinels_are_read_off_the_url() -> None:
    found = sentinels_of(WATCHED)
    assert found is not None
    assert found.hosts == (("a", 1), ("b", 26_379))
    assert (found.service, found.database) == ("mymaster", "5")
    assert found.rest == "rediss://ann:p%40ss@primary/5?ssl_ca_certs=%2Fca.pem"
    assert found.own_options == {"password": "se"}
    assert sentinels_of("redis://h:6379/5") is None
    assert shown_place(WATCHED) == "mymaster (a:1, b:26379)"
    assert shown_place("redis://:p@h/5") == "h:6379"


@pytest.mark.parametrize("url", ["redis+sentinel:///mymaster", "redis+sentinel://h:1", "http://h"])
def test_a_url_that_names_nothing_is_refused(url: str) -> None:
    with pytest.raises(SetupError) as caught:
        pool_of(url)
    assert "redis+sentinel://" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:7000/5",
        "rediss://ann:p%40s%2Fs@h:7000/5",
        "rediss://h:7000/5?ssl_ca_certs=%2Fca.pem&ssl_check_hostname=false",
        "unix:///run/redis.sock?db=5",
        "redis+sentinel://ann:pw@a:1,b:2/mymaster/5",
        "rediss+sentinel://ann:pw@a:1/other/0?ssl_ca_certs=%2Fca.pem&sentinel_password=se",
    ],
)
async def test_what_somebody_else_opened_leads_to_the_same_place(url: str) -> None:
    """A stock worker hands over its connection and nothing else."""
    opened = url_of(pool_of(url))
    assert urlsplit(opened)._replace(query="") == urlsplit(url)._replace(query="")
    assert sorted(urlsplit(opened).query.split("&")) == sorted(urlsplit(url).query.split("&"))


def test_a_blocking_client_over_tls_stays_over_tls() -> None:
    pool = redis.ConnectionPool.from_url("rediss://h:7000/5")
    assert url_of(pool) == "rediss://h:7000/5"


def test_no_password_is_shown() -> None:
    shown = without_password(WATCHED)
    assert shown.startswith("rediss+sentinel://ann@a:1,b/mymaster/5")
    assert "p%40ss" not in shown and "=se" not in shown
    assert without_password("redis://h/5?password=x&db=3") == "redis://h/5?password=&db=3"


def test_commands_name_the_database_of_a_watched_primary() -> None:
    settings = Settings(RAG_REDIS_URL=WATCHED)  # type: ignore[call-arg]
    assert localised(settings, "redis-cli -n 5 ping") == "redis-cli -h PRIMARY -n 5 ping"


# -- TLS --------------------------------------------------------------------------------------
async def test_the_queue_and_the_limiter_work_over_tls_as_a_user(
    redis_url: str, valkey_server: Server, certificate: Path
) -> None:
    admin = urlsplit(valkey_server.admin_url)  # with user and password
    async with behind_tls(admin.port or 0, certificate) as port:
        login = f"{admin.username}:{admin.password}"
        url = f"rediss://{login}@127.0.0.1:{port}/5?ssl_ca_certs={certificate / 'ca.pem'}"
        queue, limiter = RqQueue(url), SharedLimiter(url)
        try:
            await queue.ping()
            assert (await limiter.take("g", 1, Rates(10, 0))).wait_s == 0.0
        finally:
            await queue.close()
            await limiter.close()
        client = client_of(url)
        assert await client.keys("*"), "the limiter counted in its own process"
        assert await client.execute_command("ACL", "WHOAMI") == (admin.username or "").encode()
        await client.aclose()


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    valkey_server: Server, certificate: Path
) -> None:
    async with behind_tls(valkey_server.plan.port, certificate) as port:
        link = RedisLink(f"rediss://127.0.0.1:{port}/5")
        with pytest.raises(DependencyDown, match="certificate"):
            await link.call(lambda: link.redis.ping())
        await link.close()
