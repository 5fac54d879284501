"""Lineage: whether etcd still is the one we spoke with, or an older state of itself.

An etcd restored from a snapshot counts its revisions on from the snapshot's: numbers that were
given out before are given out again, for other things. Four numbers tell. Of what is read and
written through consensus each answer shows at least the revision and the term of every answer
before it, and always the same cluster. They may agree by chance (the restored etcd has been written
to meanwhile, and its elections began anew); so the length of each member's log counts as well,
which begins anew, too.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.drivers.store.etcd import etcd_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of etcd at one moment."""

    number: int = 0
    """How often it was found to have gone back."""
    cluster: int = 0
    term: int = 0
    revision: int = 0
    lengths: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    """Of the members' logs, by the member's ID."""

    def is_ahead_of(self, told: pb.Header) -> bool:
        """Whether no later answer of the same etcd could have been this one."""
        return (
            self.cluster not in {0, told.cluster_id}
            or told.raft_term < self.term
            or told.revision < self.revision
        )


class Lineage:
    """What all threads know together. Thread-safe.

    An answer is compared with what was known before its call began: answers overtake each other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known = Known()

    @property
    def known(self) -> Known:
        """What is known now."""
        return self._known

    def look(self, before: Known, told: pb.Header) -> None:
        """An answer that went through consensus; `before` was known when its call began."""
        with self._lock:
            if before.number != self._known.number:
                return
            if before.is_ahead_of(told):
                self._begin_anew(told)
                return
            known = self._known
            self._known = replace(
                known,
                cluster=told.cluster_id,
                term=max(known.term, told.raft_term),
                revision=max(known.revision, told.revision),
            )

    def look_at_log(self, before: Known, told: pb.Header, length: int) -> None:
        """How long a member's log is; asked for after an answer of its that went through consensus.

        `before` was known when its call began.
        """
        with self._lock:
            if before.number != self._known.number:
                return
            member = told.member_id
            if length < before.lengths.get(member, 0):
                self._begin_anew(told)
            known = self._known
            longest = max(length, known.lengths.get(member, 0))
            self._known = replace(known, lengths={**known.lengths, member: longest})

    def heard(self, number: int, revision: int) -> None:
        """A watch that was begun in this lineage has told of a revision."""
        with self._lock:
            if number == self._known.number and revision > self._known.revision:
                self._known = replace(self._known, revision=revision)

    def _begin_anew(self, told: pb.Header) -> None:
        self._known = Known(
            number=self._known.number + 1,
            cluster=told.cluster_id,
            term=told.raft_term,
            revision=told.revision,
        )
