"""Values as text: columns as kubectl aligns them, JSON, YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podwire.model.resource import JSON

GAP = 3
"""Spaces between columns, as kubectl puts them."""


def columns(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A left-aligned table without lines; an empty cell shows as `<none>`. Ends with a newline."""
    table = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[position]) for row in table) for position in range(len(header))]
    lines = (
        "".join(text.ljust(width + GAP) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
    return "\n".join(lines) + "\n"


def output(value: JSON, format: str) -> str:
    """The value as `json` or `yaml` text, ending with a newline; fields keep their order."""
    if format == "json":
        return json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n"
    # Imported here: most commands never print YAML, and the import takes longer than they do.
    import yaml

    text: str = yaml.safe_dump(
        json.loads(json.dumps(value, default=_plain)),
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
    )
    return text


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text or "<none>"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
