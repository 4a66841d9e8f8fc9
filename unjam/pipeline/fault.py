"""Misbehaviour on demand, to show that the sandbox holds. Reached only with UNJAM_TESTING=1."""

from __future__ import annotations

import ctypes
import os
import signal
import time

FAULT = "application/x-unjam-fault"
"""Media type of files that misbehave on purpose; read only when UNJAM_TESTING=1."""


def misbehave(order: str) -> None:
    """Do what the first word of *order* says; returns for an order it does not know.

    ``loop`` burns CPU for ever · ``sleep`` waits for ever · ``memory`` allocates until it may not ·
    ``segfault`` reads address 0 · ``exit`` leaves without a word · ``term`` gets SIGTERM
    · ``write`` writes a file.
    """
    word = order.partition(" ")[0].strip()
    if word == "loop":
        while True:
            pass
    elif word == "sleep":
        while True:
            time.sleep(60)
    elif word == "memory":
        hoard: list[bytearray] = []
        while True:
            hoard.append(bytearray(b"x" * (8 << 20)))
    elif word == "segfault":
        ctypes.string_at(0)
    elif word == "exit":
        os._exit(3)
    elif word == "term":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    elif word == "write":
        with open(order.split()[1], "w") as stream:  # noqa: PTH123 - exactly this call is the test
            stream.write("x" * 100_000)
