"""JSON bodies of the operators' part, read whatever the content type says.

The runbook's curl calls send JSON under curl's form content type.
"""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from unjam.core.errors import TooLarge, UsageError

Model = TypeVar("Model", bound=BaseModel)
MAX_BYTES = 1 << 20


async def json_body(request: Request, model: type[Model]) -> Model:
    """The body as *model*.

    Raises:
        RequestValidationError: a field is unknown, absent or wrong; it is named.
        UsageError: it is not JSON. TooLarge: more than 1 MiB.
    """
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > MAX_BYTES:
            raise TooLarge(f"the body has more than {MAX_BYTES} bytes", hint="Send it in parts.")
    try:
        value = orjson.loads(bytes(raw))
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the body is not JSON: {error}", code="invalid") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_context=False)) from None


def described(model: type[BaseModel]) -> dict[str, Any]:
    """For ``openapi_extra``: the body's schema, which FastAPI cannot see."""
    schema = model.model_json_schema()
    schema = _inlined(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(value: Any, parts: dict[str, Any]) -> Any:
    """*value* without references: in an OpenAPI document they would lead nowhere."""
    if isinstance(value, dict):
        entries: dict[str, Any] = value
        if "$ref" in entries:
            return _inlined(parts[entries["$ref"].rpartition("/")[2]], parts)
        return {name: _inlined(inner, parts) for name, inner in entries.items()}
    if isinstance(value, list):
        items: list[Any] = value
        return [_inlined(inner, parts) for inner in items]
    return value
