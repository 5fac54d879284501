"""Commands: a fix as lines to be typed, where one would type them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from podwire.trace.table import WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.trace.schema import Fix, Where

DEFAULT_LAB = "lab"
INDENT = 10
_WORD = re.compile(r"(?:'[^']*'|\S)+")
"""A word of a shell; blanks inside quotes do not end it."""


def commands(fix: Fix, where: Where, lab: str | None) -> list[str]:
    """The lines; long ones end with a backslash, so that all of it can be pasted."""
    lines: list[str] = []
    if fix.agent and where.node is not None:
        lines += _folded(_release(where.node, lab))
        if fix.command is not None:
            lines.append("or by hand:")
    if fix.command is not None:
        before = _before(where, lab)
        for command in fix.command.split(" && "):
            lines += _folded(f"{before}{command}")
    return lines


def _release(node: str, lab: str | None) -> str:
    if lab is None:
        return f"on {node}:  podwire agent release"
    return f"podwire lab release{_named(lab)} {node}"


def _before(where: Where, lab: str | None) -> str:
    """What says where a command is run, or runs it there."""
    place = where.netns
    if place is None:
        return ""
    if lab is None:
        return f"{'in' if '/' in place else 'on'} {place}:  "
    verb = "exec" if "/" in place else "node"
    return f"podwire lab {verb}{_named(lab)} {place} -- "


def _named(lab: str) -> str:
    return "" if lab == DEFAULT_LAB else f" --name {lab}"


def _folded(command: str) -> Iterator[str]:
    room = WIDTH - INDENT - 2
    line = ""
    for match in re.finditer(rf"(\s*)({_WORD.pattern})", command):
        blank, word = match.groups()
        if line and len(line) + len(blank) + len(word) > room:
            yield f"{line} \\"
            line = f"    {word}"
        else:
            line = f"{line}{blank}{word}"
    yield line
