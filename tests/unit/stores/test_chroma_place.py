"""A Chroma behind a proxy that speaks TLS and asks for a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.chroma import ChromaServer
from tests.fixtures.tls import behind_tls
from unjam.app.house import without_password
from unjam.core.errors import DependencyDown, SetupError
from unjam.observe.logs import secrets_cut
from unjam.settings import Settings
from unjam.stores.chroma_place import ChromaPlace
from unjam.stores.vectors_chroma import ChromaVectors

URL = "https://c.example/chroma?token=s3cret-one&token_header=X-Chroma-Token&ca=/ca.pem"


def test_what_the_url_says() -> None:
    place = ChromaPlace.parse(URL)
    assert (place.url, place.ca_file) == ("https://c.example/chroma", "/ca.pem")
    assert place.headers == {"x-chroma-token": "s3cret-one"}
    bearer = ChromaPlace.parse("http://c:8000/?token=abc")
    assert (bearer.url, bearer.headers) == ("http://c:8000", {"authorization": "Bearer abc"})
    login = ChromaPlace.parse("http://ann:p%40ss@c:8000")
    assert (login.url, login.headers) == (
        "http://c:8000",
        {"authorization": "Basic YW5uOnBAc3M="},
    )
    with pytest.raises(SetupError, match="unknown option tokn"):
        ChromaPlace.parse("http://c?tokn=x")
    with pytest.raises(SetupError, match="cannot be read"):
        ChromaVectors("https://c?ca=/no/such/file")


def test_the_token_is_never_shown() -> None:
    assert without_password(URL) == URL.replace("s3cret-one", "")
    settings = Settings(  # type: ignore[call-arg]
        RAG_CHROMA_URL=URL, RAG_REDIS_URL="redis://ann:hidden-two@h/5"
    )
    shown = secrets_cut(settings)(f"{URL} and hidden-two")
    assert "s3cret-one" not in shown and "hidden-two" not in shown


async def test_token_and_own_certificates_reach_it(
    chroma_server: ChromaServer, certificate: Path
) -> None:
    needs = "x-chroma-token: s3cret-one"
    async with behind_tls(chroma_server.port, certificate, needs) as port:
        host, trusted = f"https://127.0.0.1:{port}", f"ca={certificate / 'ca.pem'}"
        good = ChromaVectors(f"{host}?token=s3cret-one&token_header=X-Chroma-Token&{trusted}")
        await good.ping()
        await good.close()
        for url, why in (
            (f"{host}?token=wrong-one&token_header=X-Chroma-Token&{trusted}", "401"),
            (f"{host}?token=s3cret-one&token_header=X-Chroma-Token", "certificate"),
        ):
            bad = ChromaVectors(url)
            with pytest.raises(DependencyDown, match=why) as caught:
                await bad.ping()
            assert "-one" not in caught.value.detail
            await bad.close()
