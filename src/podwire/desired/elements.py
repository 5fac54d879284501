"""Elements: which ones the nodes and pods want in our sets, at a cost that follows the change."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from podwire.model.nftelement import Element


class Elements:
    """Owners and their elements; several may want the same one.

    `there` is what the kernel's sets are taken to hold. Invariant: once `changes` has no more to
    tell and all it told was carried out, what is there is what somebody wants.
    """

    def __init__(self) -> None:
        self.there: set[Element] = set()
        self._of: dict[Hashable, frozenset[Element]] = {}
        self._owners: Counter[Element] = Counter()
        self._doubtful: set[Element] = set()

    def of(self, owner: Hashable) -> frozenset[Element]:
        """What one owner wants."""
        return self._of.get(owner, frozenset())

    def put(self, owner: Hashable, elements: frozenset[Element] = frozenset()) -> None:
        """This is what the owner wants from now on."""
        before = self._of.pop(owner, frozenset())
        if elements:
            self._of[owner] = elements
        self._owners.update(elements - before)
        for element in before - elements:
            self._owners[element] -= 1
            if not self._owners[element]:
                del self._owners[element]
        self._doubtful |= before ^ elements

    def wanted(self, family: str) -> frozenset[Element]:
        """All elements of one family that somebody wants."""
        return frozenset(each for each in self._owners if each.family == family)

    def changes(self) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
        """(to be taken away, to be put in) until what is there is what is wanted."""
        deleted = [e for e in self._doubtful if e in self.there and e not in self._owners]
        added = [e for e in self._doubtful if e not in self.there and e in self._owners]
        return tuple(deleted), tuple(added)

    def changed(self, deleted: Iterable[Element], added: Iterable[Element]) -> None:
        """That was carried out; who wants them is still to be compared."""
        self.there.difference_update(deleted)
        self.there.update(added)
        self._doubtful.update(deleted, added)

    def settled(self) -> None:
        """All changes told so far were carried out."""
        self._doubtful.clear()

    def found(self, family: str, elements: Iterable[Element]) -> None:
        """The kernel's sets of one family hold these, and no other ones."""
        others = {each for each in self.there if each.family != family}
        self.there = others | set(elements)
