"""What somebody meant who wrote a name that does not exist."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ALIKE = 0.5
"""Share of letters in common from which on a name is worth proposing."""


def nearest(word: str, known: Iterable[str], alike: float = ALIKE) -> str | None:
    """The known name that looks most like this one, whatever the case; None: none does."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=alike)
    return names[close[0]] if close else None


def suggestion(word: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean …?`, or the other advice when no name is near."""
    near = nearest(word, known)
    return otherwise if near is None else f"did you mean {near}?"
