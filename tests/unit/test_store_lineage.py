"""Whether etcd has gone back: by its own numbers, however answers overtake each other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers.store.etcd import etcd_pb2 as pb
from podwire.drivers.store.etcd.lineage import Lineage
from podwire.drivers.store.etcd.watch import EtcdWatch, Position, parse_position
from podwire.errors import Restored

if TYPE_CHECKING:
    from collections.abc import Iterator


def header(revision: int, term: int = 5, cluster: int = 1, member: int = 1) -> pb.Header:
    return pb.Header(cluster_id=cluster, member_id=member, revision=revision, raft_term=term)


@pytest.fixture
def lineage() -> Lineage:
    made = Lineage()
    made.look(made.known, header(100))
    made.look_at_log(made.known, header(100), 900)
    return made


@pytest.mark.parametrize(
    "told",
    [header(99), header(500, term=2), header(500, cluster=2)],
    ids=["revision", "term", "cluster"],
)
def test_an_answer_that_shows_less_than_was_known(lineage: Lineage, told: pb.Header) -> None:
    lineage.look(lineage.known, told)
    assert (lineage.known.number, lineage.known.revision) == (1, told.revision)
    lineage.look(lineage.known, told)
    assert lineage.known.number == 1


def test_a_log_that_has_become_shorter(lineage: Lineage) -> None:
    lineage.look_at_log(lineage.known, header(500, member=2), 3)  # another member's
    assert lineage.known.number == 0
    lineage.look_at_log(lineage.known, header(500), 899)
    assert lineage.known.number == 1


def test_answers_that_overtake_each_other_are_no_restore(lineage: Lineage) -> None:
    slow = lineage.known
    lineage.look(lineage.known, header(120, term=6))
    lineage.look(slow, header(110))
    lineage.look_at_log(slow, header(120), 920)
    lineage.look_at_log(slow, header(110), 910)
    assert (lineage.known.number, lineage.known.revision, lineage.known.term) == (0, 120, 6)
    lineage.look_at_log(lineage.known, header(130), 915)
    assert lineage.known.number == 1


def test_what_an_older_etcd_said_counts_no_longer(lineage: Lineage) -> None:
    slow = lineage.known
    lineage.look(lineage.known, header(50))
    lineage.look(slow, header(130))
    lineage.look_at_log(slow, header(130), 1)
    lineage.heard(slow.number, 130)
    assert (lineage.known.number, lineage.known.revision) == (1, 50)
    lineage.heard(1, 60)
    assert lineage.known.revision == 60


def test_a_position_tells_which_etcd_gave_it_out() -> None:
    for position, text in ((Position(7), "7"), (Position(7, 2), "7@2")):
        assert str(position) == text
        assert parse_position(text) == position
    for wrong in ("", "x", "7@", "@2", "-7", "7@2@3"):
        assert parse_position(wrong) is None


class Member:
    """A client whose watches are served by one member; `now` is what all of them have agreed on."""

    name = "etcd"

    def __init__(self, now: pb.Header, *answers: pb.WatchResponse) -> None:
        self.lineage = Lineage()
        self.lineage.look(self.lineage.known, header(100))
        self._now = now
        self._answers = answers
        self._ended = threading.Event()

    def look_back(self) -> None:
        self.lineage.look(self.lineage.known, self._now)

    def stream(self, *_: object) -> tuple[int, Member]:
        return 0, self

    def __iter__(self) -> Iterator[pb.WatchResponse]:
        yield from self._answers
        self._ended.wait()

    def cancel(self) -> None:
        self._ended.set()


def watch_by(member: Any) -> EtcdWatch:
    return EtcdWatch(member, (b"/a/", b"/a0"), Position(100))


def test_a_member_that_lags_is_waited_for() -> None:
    put = pb.Event(kv=pb.KeyValue(key=b"/a/1", mod_revision=101, value=b"{}"))
    behind = pb.WatchResponse(created=True, header=header(90))
    watch = watch_by(Member(header(105), behind, pb.WatchResponse(events=[put])))
    (change,) = watch.wait(20)
    assert (change.key, watch.position) == ("/a/1", "101")
    watch.close()


def test_a_watch_that_a_restored_etcd_serves_ends_at_once() -> None:
    watch = watch_by(Member(header(90), pb.WatchResponse(created=True, header=header(90))))
    with pytest.raises(Restored):
        watch.wait(20)
    watch.close()
