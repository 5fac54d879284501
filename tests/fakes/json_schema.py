"""Just enough of JSON Schema to check documents against the schema we publish."""

from __future__ import annotations

from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
KNOWN = frozenset(
    {"$schema", "$id", "$defs", "$ref", "title", "description", "type", "required", "properties",
     "items", "enum", "const", "anyOf"}
)  # fmt: skip


def complaints(value: Any, schema: Any, root: Any, path: str = "$") -> list[str]:
    """What in `value` is not as the schema says; unknown keywords of the schema are refused."""
    assert schema.keys() <= KNOWN, schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return complaints(value, root["$defs"][name], root, path)
    if "anyOf" in schema:
        found = [complaints(value, each, root, path) for each in schema["anyOf"]]
        return [] if [] in found else found[0]
    if "const" in schema and value != schema["const"]:
        return [f"{path}: {value!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: {value!r} is none of {schema['enum']}"]
    if not _is(value, schema.get("type")):
        return [f"{path}: {value!r} is no {schema['type']}"]
    found_here: list[str] = []
    if isinstance(value, dict):
        found_here += [
            f"{path}.{key} is missing" for key in schema.get("required", ()) if key not in value
        ]
        properties = schema.get("properties")
        if properties is not None:
            found_here += [
                f"{path}.{key} is not in the schema" for key in value if key not in properties
            ]
            for key in properties.keys() & value.keys():
                found_here += complaints(value[key], properties[key], root, f"{path}.{key}")
    if isinstance(value, list) and "items" in schema:
        for number, each in enumerate(value):
            found_here += complaints(each, schema["items"], root, f"{path}[{number}]")
    return found_here


def _is(value: Any, wanted: str | list[str] | None) -> bool:
    if wanted is None:
        return True
    names = [wanted] if isinstance(wanted, str) else wanted
    return any(
        isinstance(value, TYPES[name]) and not (name == "integer" and isinstance(value, bool))
        for name in names
    )
