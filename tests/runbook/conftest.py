"""One house for the whole walk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runbook.ground import Ground
from tests.runbook.house import House


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    ground = Ground(tmp_path_factory.mktemp("runbook")).open()
    house = House(ground)
    try:
        yield house.open()
    finally:
        house.close()


@pytest.fixture
def stock(walked: House) -> House:
    """The house without workers of its own: the runbook's are the only ones."""
    return walked.serve(0)


@pytest.fixture
def house(walked: House) -> House:
    """The house as ``unjam up`` has it, with two workers."""
    return walked.serve(2)
