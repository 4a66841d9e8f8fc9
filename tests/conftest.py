"""Shared fixtures live in ``tests/fixtures``, one module per real server."""

pytest_plugins = [
    "tests.fixtures.ledger",
    "tests.fixtures.valkey",
    "tests.fixtures.chroma",
    "tests.fixtures.openai",
    "tests.fixtures.stack",
    "tests.fixtures.web",
    "tests.fixtures.outage",
    "tests.fixtures.small_disk",
    "tests.fixtures.noskip",
]
