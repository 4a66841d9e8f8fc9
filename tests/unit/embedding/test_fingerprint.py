from __future__ import annotations

from typing import Any

import pytest

from unjam.embedding.factory import tokenizer_spec
from unjam.embedding.fingerprint import clean_endpoint, current_pin, query_prefix
from unjam.settings import Settings


def settings(**values: Any) -> Settings:
    return Settings.model_validate(values)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("OPENAI_API_KEY", "OPENAI_API_KEYS", "OPENAI_BASE_URL", "RAG_EMBEDDING_MODEL"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_key_text_stays_here():
    pin = current_pin(settings(), {})
    assert pin.fingerprint.endpoint == "local"
    assert pin.fingerprint.dimension == 384
    assert pin.fingerprint.role_prefix == "passage: "
    assert query_prefix(pin.fingerprint) == "query: "
    assert (pin.chunk_tokens, pin.overlap_tokens, pin.tokenizer) == (256, 32, "local")


def test_with_a_key_the_endpoint_is_named_without_its_secrets():
    pin = current_pin(
        settings(OPENAI_API_KEY="k", OPENAI_BASE_URL="https://User:pw@Host.Example:8443/v1/?a=b"),
        {},
    )
    assert pin.fingerprint.endpoint == "https://host.example:8443/v1"
    assert pin.fingerprint.dimension == 1536
    assert query_prefix(pin.fingerprint) == ""
    assert pin.tokenizer == "openai:cl100k_base"
    assert tokenizer_spec(pin) == "openai:cl100k_base"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("http://[::1]:9000/v1/", "http://[::1]:9000/v1"),
        ("HTTPS://API.openai.com/v1", "https://api.openai.com/v1"),
    ],
)
def test_one_endpoint_has_one_name(url: str, clean: str):
    assert clean_endpoint(url) == clean


def test_an_unknown_model_has_the_dimension_it_gives():
    pin = current_pin(settings(OPENAI_API_KEY="k", RAG_EMBEDDING_MODEL="other"), {})
    assert pin.fingerprint.dimension == 0


def test_live_knobs_win_and_stay_within_the_model():
    pin = current_pin(settings(), {"RAG_MAX_CHUNK_SIZE": 4000, "RAG_CHUNK_OVERLAP": 4000})
    assert 490 <= pin.chunk_tokens < 512
    assert pin.overlap_tokens == pin.chunk_tokens // 2


def test_knobs_change_the_pin_but_not_the_collection():
    before, after = current_pin(settings(), {}), current_pin(settings(), {"RAG_MAX_CHUNK_SIZE": 99})
    assert before.id != after.id
    assert before.fingerprint.collection == after.fingerprint.collection
