"""Diagnose: symptoms → causes with evidence; the first is the root cause. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from unjam.core.incident import Diagnosis
from unjam.watchdog.detect import Symptom
from unjam.watchdog.facts import Facts


def diagnose(symptoms: Sequence[Symptom], facts: Facts) -> list[Diagnosis]:
    """Causes, root cause first; what another cause explains is among its ``effects`` instead."""
    return []
