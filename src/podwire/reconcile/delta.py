"""DeltaTracker: the plan kept up to date, one key at a time.

`plan` costs as much as the tables are long; a node with 10,000 routes cannot afford that for each
change. The tracker holds both tables and judges a key again only when one side of it moved.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Generic

from podwire.reconcile.plan import K, Ownership, Plan, Serves, Step, V, decide, nothing_serves

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet


class DeltaTracker(Generic[K, V]):
    """Desired and actual of one kernel table, and what lies between them.

    Invariant: `pending` equals `plan(desired, actual, owned, serves)` after every call.
    """

    def __init__(self, owned: Ownership[K, V], serves: Serves[V] = nothing_serves) -> None:
        self._owned = owned
        self._serves = serves
        self._desired: dict[K, V] = {}
        self._actual: dict[K, V] = {}
        self._writes: dict[K, V] = {}
        self._deletes: dict[K, V] = {}
        self._conflicts: dict[K, V] = {}
        self._drifted: set[K] = set()
        self._unseen: set[K] | None = None
        self.pending: Plan[K, V] = Plan(
            writes=MappingProxyType(self._writes),
            deletes=MappingProxyType(self._deletes),
            conflicts=MappingProxyType(self._conflicts),
        )
        """A live view; copy it before changing the tracker while iterating."""
        self.drifted: AbstractSet[K] = self._drifted
        """Keys that were right, are wanted unchanged, and changed or went by themselves."""

    @property
    def desired(self) -> Mapping[K, V]:
        """What should be there."""
        return MappingProxyType(self._desired)

    @property
    def actual(self) -> Mapping[K, V]:
        """What is there, as last seen."""
        return MappingProxyType(self._actual)

    def want(self, key: K, value: V) -> None:
        """The key should be there with this value."""
        if self._desired.get(key) != value:
            self._desired[key] = value
            self._drifted.discard(key)
            self._judge(key)

    def unwant(self, key: K) -> None:
        """The key should not be there."""
        if self._desired.pop(key, None) is not None:
            self._drifted.discard(key)
            self._judge(key)

    def saw(self, key: K, value: V) -> bool:
        """The key was seen with this value, or was just written so; whether that is news."""
        if self._unseen is not None:
            self._unseen.discard(key)
        before = self._actual.get(key)
        if before == value:
            return False
        self._actual[key] = value
        self._note_drift(key, before, value)
        self._judge(key)
        return True

    def gone(self, key: K) -> bool:
        """The key was seen to be absent, or was just deleted; whether that is news."""
        if self._unseen is not None:
            self._unseen.discard(key)
        before = self._actual.pop(key, None)
        if before is None:
            return False
        self._note_drift(key, before, None)
        self._judge(key)
        return True

    def judge_again(self) -> None:
        """What counts as ours has changed: every key is judged anew."""
        for key in self._desired.keys() | self._actual.keys():
            self._judge(key)

    def begin_audit(self) -> None:
        """Everything is about to be seen again; what is not seen until `end_audit` is gone."""
        self._unseen = set(self._actual)

    def abandon_audit(self) -> None:
        """The listing did not come to its end: nothing follows from it."""
        self._unseen = None

    def end_audit(self) -> int:
        """The listing is complete; how many entries had vanished without an event."""
        unseen, self._unseen = self._unseen or set(), None
        for key in unseen:
            self.gone(key)
        return len(unseen)

    def resync(self, actual: Iterable[tuple[K, V]]) -> int:
        """Take a complete listing at once; how many entries differed from memory."""
        self.begin_audit()
        news = sum(self.saw(key, value) for key, value in actual)
        return news + self.end_audit()

    def _note_drift(self, key: K, before: V | None, now: V | None) -> None:
        desired = self._desired.get(key)
        if desired is None:
            return
        if now == desired:
            self._drifted.discard(key)
        elif before == desired:
            self._drifted.add(key)

    def _judge(self, key: K) -> None:
        desired, actual = self._desired.get(key), self._actual.get(key)
        for group in (self._writes, self._deletes, self._conflicts):
            group.pop(key, None)
        match decide(key, desired, actual, self._owned, self._serves):
            case Step.WRITE:
                assert desired is not None
                self._writes[key] = desired
            case Step.DELETE:
                assert actual is not None
                self._deletes[key] = actual
            case Step.CONFLICT:
                assert actual is not None
                self._conflicts[key] = actual
            case Step.NOTHING:
                pass
