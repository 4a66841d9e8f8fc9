"""House: how a process that knows only Redis, or only the data folder, finds everything else."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unjam.core.errors import SetupError
from unjam.core.tuning import KNOBS, check_knob
from unjam.settings import Settings


@dataclass(frozen=True, slots=True)
class House:
    """Where everything is; no secrets. Also the contents of ``rag:house``."""

    ledger_id: str
    data_dir: str
    log_dir: str
    redis_url: str
    chroma_url: str
    database_url: str
    storage_url: str
    api_url: str = ""
    dashboard_url: str = ""
    vector_store_url: str = ""
    """Empty: Chroma at *chroma_url*."""
    knobs: str = "{}"
    """JSON: the start values of live knobs that this house set, by variable; e.g. the system-wide
    cap must be the same for a worker that knows only Redis."""
    embedding: str = ""
    """The model, and the endpoint that text is sent to, if any; for those who look from a shell
    without the endpoint's variables."""

    def to_mapping(self) -> dict[str, str]:
        return asdict(self)

    @staticmethod
    def from_mapping(raw: Mapping[str, Any]) -> House:
        known = {f: str(raw.get(f, "")) for f in House.__dataclass_fields__}
        return House(**known)

    def write(self, data_dir: Path) -> None:
        """``<data>/house.json``, 0600, atomically."""
        handle, name = tempfile.mkstemp(dir=data_dir, prefix="house.")
        with os.fdopen(handle, "w") as file:
            json.dump(self.to_mapping(), file, indent=1)
        Path(name).replace(data_dir / "house.json")

    @staticmethod
    def read(data_dir: Path) -> House | None:
        try:
            return House.from_mapping(json.loads((data_dir / "house.json").read_text()))
        except (OSError, ValueError):
            return None


def knobs_set(settings: Settings) -> str:
    """Start values of live knobs that the environment gave, as ``House.knobs``."""
    given = {
        name: getattr(settings, attribute)
        for name, attribute in _attributes().items()
        if attribute in settings.model_fields_set
    }
    return json.dumps(given, sort_keys=True)


def _attributes() -> dict[str, str]:
    """Variable of each live knob → its attribute of the settings."""
    fields = Settings.model_fields.items()
    return {f.alias: attribute for attribute, f in fields if f.alias and f.alias in KNOBS}


_SECRET_OPTION = re.compile(r"([?&])(\w*(?:password|secret)\w*|token)=[^&]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """*url* as it may be shown and shared."""
    url = _SECRET_OPTION.sub(r"\1\2=", url)
    scheme, sep, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    if not at:
        return url
    user = credentials.partition(":")[0]
    return f"{scheme}{sep}{user}@{place}" if user else f"{scheme}{sep}{place}"


def settle_in(settings: Settings, house: House) -> Settings:
    """*settings* with what the environment left open taken from *house*.

    Raises:
        SetupError: the house's data folder is not on this machine, or its knobs are no numbers.
        UsageError: a knob is out of bounds.
    """
    update: dict[str, Any] = {}
    if "data_dir" not in settings.model_fields_set:
        update["data_dir"] = Path(house.data_dir)
        if not Path(house.data_dir).is_dir() and not settings.database_url:
            raise SetupError(
                f"the house's data folder {house.data_dir} is not on this machine",
                hint="Set RAG_DATA_DIR, or RAG_DATABASE_URL and RAG_STORAGE_URL, for this worker.",
            )
    if settings.log_dir_setting is None and house.log_dir:
        update["log_dir_setting"] = Path(house.log_dir)
    names = ["redis_url", "chroma_url", "database_url", "storage_url"]
    if settings.chroma_url is None:  # who names a Chroma wants no other store
        names.append("vector_store_url")
    for name in names:
        if getattr(settings, name) is None and getattr(house, name):
            update[name] = getattr(house, name)
    for name, value in _knobs_of(house).items():
        attribute = _attributes().get(name)
        if attribute is not None and attribute not in settings.model_fields_set:
            update[attribute] = check_knob(name, value)
    return settings.model_copy(update=update)


def _knobs_of(house: House) -> dict[str, int]:
    try:
        return {str(name): int(value) for name, value in json.loads(house.knobs or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        raise SetupError(
            "the house's knobs cannot be read",
            hint="Restart `unjam up`: it writes house.json and rag:house anew.",
        ) from None


def found(settings: Settings) -> Settings:
    """*settings* completed from ``<data>/house.json`` of a system that runs here, if any."""
    house = House.read(settings.data_dir)
    return settle_in(settings, house) if house is not None else settings
