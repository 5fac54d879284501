"""Listen to what the kernels themselves tell while probes are on their way, as far as they let us.

What may not or cannot be heard is said, with what it would have decided; the rest is heard all the
same. Nothing stays behind, however this process ends.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from podwire.drivers.capture.dropreasons import DropReasons
from podwire.drivers.capture.nftrace import RuleTrace
from podwire.errors import PodwireError
from podwire.trace.deep import Heard
from podwire.trace.schema import Gap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.trace.probe import Series

RULES = "the kernel's trace of rules"
REASONS = "the kernel's reasons of drops"


@dataclass(slots=True)
class Listening:
    """Both kinds of words; a context manager that ends them."""

    _titles: Mapping[int, str]
    _rules: RuleTrace
    _reasons: DropReasons | None
    _gaps: tuple[Gap, ...]
    _open: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def open(
        cls, spaces: Mapping[int, int], titles: Mapping[int, str], series: Series
    ) -> Listening:
        """Listen in `spaces` (descriptors by inode, with their names), for one series of probes."""
        with ExitStack() as opened:
            reasons: DropReasons | None = None
            gaps: tuple[Gap, ...] = ()
            try:
                reasons = opened.enter_context(DropReasons.open(series))
            except PodwireError as error:
                gaps = (_gap(REASONS, error.message, error.fix, "why the kernel drops a packet"),)
            rules = opened.enter_context(RuleTrace.open(spaces, series))
            return cls(titles, rules, reasons, gaps, opened.pop_all())

    def heard(self) -> Heard:
        """Everything until now; to be asked once, when the probes are over."""
        rulings = self._rules.read()
        events = () if self._reasons is None else self._reasons.read()
        return Heard(
            rulings=rulings,
            listened=self._rules.complete,
            nft=not self._rules.refused,
            tracefs=self._reasons is not None,
            events=events,
            gaps=(*self._gaps, *self._silent()),
        )

    def _silent(self) -> tuple[Gap, ...]:
        """Where nothing was heard, or not everything."""
        reasons = self._rules.refused
        found = [
            Gap(what=f"{RULES} in {self._titles[inode]}", why=why, decides="which rule it meets")
            for inode, why in reasons.items()
        ]
        found += [
            Gap(what=f"{RULES} in {self._titles[inode]}", why="more came than was read")
            for inode in self._titles
            if inode not in self._rules.complete and inode not in reasons
        ]
        if self._reasons is not None and self._reasons.lost:
            found.append(Gap(what=REASONS, why="more came than there was room for"))
        return tuple(found)

    def close(self) -> None:
        """Listen no more; safe to repeat."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _gap(what: str, why: str, fix: str | None, decides: str) -> Gap:
    return Gap(what=what, why=why if fix is None else f"{why}: {fix}", decides=decides)
