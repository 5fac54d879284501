"""Reply: the line protocol of BIRD's control socket, as birdc speaks it (BIRD: doc/reply_codes).

`1002-text` goes on, `0000 text` ends a reply, and a line that begins with a space has the code of
the line before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WELCOME = 1
CONFIGURED = frozenset({3, 4, 18})
"""Reconfigured; in progress; nothing to undo."""
CHECKED = 20
STATUS_LINE = 13
ROUTE_LINE = 1007
ROUTE_ATTRIBUTES = 1012
PROTOCOL_LINE = 1002
PROTOCOL_DETAILS = 1006
FAILURES = 8000
"""From here on the command failed: 8xxx at run time, 9xxx by its syntax."""

_CODE = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a reply."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """Everything BIRD says to one command."""

    lines: tuple[Line, ...]

    @property
    def code(self) -> int:
        """How it ended."""
        return self.lines[-1].code if self.lines else 0

    @property
    def failed(self) -> bool:
        """Whether BIRD refused or could not do it."""
        return self.code >= FAILURES

    @property
    def message(self) -> str:
        """The sentence it ended with."""
        return self.lines[-1].text.strip() if self.lines else ""


def ends(line: str) -> bool:
    """Whether a reply is complete with this line."""
    return len(line) > _CODE and line[:_CODE].isdigit() and line[_CODE] == " "


def parse_reply(lines: Iterable[str]) -> Reply:
    """The lines of one reply, without their line ends."""
    found: list[Line] = []
    code = 0
    for line in lines:
        if line[:_CODE].isdigit() and line[_CODE : _CODE + 1] in {"-", " "}:
            code = int(line[:_CODE])
            found.append(Line(code, line[_CODE + 1 :]))
        else:
            found.append(Line(code, line[1:]))
    return Reply(tuple(found))
