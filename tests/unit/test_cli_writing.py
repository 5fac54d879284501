"""What a command writes: all or none while the datastore takes it at once, else told how far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podwire.boundary import Verb, Write
from podwire.cli.writing import write_all
from podwire.drivers.store.pieces import MOST_BYTES, MOST_WRITES, pieces
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.errors import AlreadyExists, DatastoreUnavailable, InUse, Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Entry


class NarrowStore(SingleObjectStore):
    """It takes as many writes at once as etcd."""

    def batch(self, writes: Sequence[Write]) -> Sequence[Entry | None]:
        if len(writes) > 128:
            raise Unsupported("too many")
        return super().batch(writes)


def creating(count: int, size: int = 1) -> list[Write]:
    return [
        Write(verb=Verb.CREATE, key=f"/{number:03}", value={"x": "x" * size})
        for number in range(count)
    ]


def written(store: SingleObjectStore) -> int:
    return len(store.list("/").entries)


def test_pieces_keep_the_order_and_are_small() -> None:
    for writes in (creating(0), creating(250), creating(90, 23_000), creating(3, MOST_BYTES)):
        found = list(pieces(writes))
        assert [write for piece in found for write in piece] == writes
        for piece in found:
            size = sum(len(str(write.value)) for write in piece)
            assert 0 < len(piece) <= MOST_WRITES
            assert size <= MOST_BYTES or len(piece) == 1


def test_what_the_datastore_takes_at_once_is_all_or_none() -> None:
    store = SingleObjectStore(batches=True)
    store.create("/200", {})
    with pytest.raises(AlreadyExists):
        write_all(store, creating(300), again="again")
    assert written(store) == 1


@pytest.mark.parametrize("batches", [True, False])
def test_more_is_written_in_pieces(batches: bool) -> None:
    store = NarrowStore(batches=batches)
    write_all(store, creating(300), again="again")
    assert written(store) == 300
    entries = store.list("/").entries
    gone = [Write(verb=Verb.DELETE, key=each.key, revision=each.revision) for each in entries]
    write_all(store, gone, again="again")
    assert written(store) == 0


def test_a_later_piece_that_is_refused_says_how_far_it_came() -> None:
    store = NarrowStore(batches=True)
    store.create("/250", {})
    with pytest.raises(InUse, match="200 of 300 objects were written, then: /250") as caught:
        write_all(store, creating(300), again="apply again")
    assert caught.value.fix == "apply again"
    assert written(store) == 201


def test_a_datastore_that_goes_away_says_how_far_it_came() -> None:
    store = NarrowStore(batches=True)
    store.fail_after(1, DatastoreUnavailable("away"))
    with pytest.raises(DatastoreUnavailable, match="100 of 300 objects were written, then: away"):
        write_all(store, creating(300), again="again")


def test_the_first_piece_that_is_refused_is_told_as_ever() -> None:
    store = NarrowStore(batches=True)
    store.create("/000", {})
    with pytest.raises(AlreadyExists, match="/000"):
        write_all(store, creating(300), again="again")
    assert written(store) == 1
