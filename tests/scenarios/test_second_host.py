"""A second host on a folder that is not shared is refused, before it takes a document."""

from __future__ import annotations

from pathlib import Path

import pytest

from unjam.app.services import open_services
from unjam.core.errors import SetupError
from unjam.testing.stack import Stack


async def test_a_folder_that_is_not_the_shared_one_is_refused(stack: Stack, tmp_path: Path) -> None:
    await stack.add("alpha")
    elsewhere = stack.settings.model_copy(update={"storage_url": str(tmp_path / "other")})
    with pytest.raises(SetupError, match="not the folder that the other hosts use") as refused:
        await open_services(elsewhere, role="api")
    assert "RAG_STORAGE_URL" in refused.value.hint
    same = await open_services(stack.settings, role="api")
    await same.close()
