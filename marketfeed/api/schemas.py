"""JSON Schemas of structs, as components of a document."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

REF: Final = "#/components/schemas/{name}"
JsonSchema = dict[str, Any]


def strict(structs: Iterable[type[Any]]) -> dict[str, JsonSchema]:
    """Return the schemas of ``structs`` and of what they refer to, by name. They refuse unknown fields."""
    _, schemas = msgspec.json.schema_components(structs, ref_template=REF)
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return schemas


def tolerant(structs: Iterable[type[Any]]) -> dict[str, JsonSchema]:
    """Return the schemas of ``structs`` and of what they refer to. They allow unknown fields.

    As clients have to: later versions of the engine may add fields.
    """
    schemas = strict(structs)
    for schema in schemas.values():
        if schema.get("additionalProperties") is False:
            del schema["additionalProperties"]
    return schemas


def ref(struct: type[Any]) -> JsonSchema:
    """Return a reference to the schema of ``struct``."""
    return {"$ref": REF.format(name=struct.__name__)}


def array_of(structs: Iterable[type[Any]]) -> JsonSchema:
    """Return the schema of an array of these structs in any order."""
    return {"type": "array", "items": {"oneOf": [ref(struct) for struct in structs]}}
