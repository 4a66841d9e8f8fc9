"""Shared fixtures live in ``tests/fixtures``, one module per real server."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a script: children would inherit a Ctrl-C that does nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.fixtures.ledger",
    "tests.fixtures.postgres",
    "tests.fixtures.valkey",
    "tests.fixtures.chroma",
    "tests.fixtures.s3",
    "tests.fixtures.tls",
    "tests.fixtures.sentinel",
    "tests.fixtures.vectors",
    "tests.fixtures.openai",
    "tests.fixtures.stack",
    "tests.fixtures.web",
    "tests.fixtures.outage",
    "tests.fixtures.small_disk",
    "tests.fixtures.noskip",
]
