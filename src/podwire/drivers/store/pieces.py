"""More writes than a datastore takes at once, in pieces that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.drivers.store.jsontext import to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from podwire.boundary import Write

MOST_WRITES = 100
"""etcd takes 128 (--max-txn-ops)."""
MOST_BYTES = 512 * 1024
"""etcd takes 1.5 MB (--max-request-bytes); a full block of 64 addresses has 23 KB."""
EACH = 64
"""What one write weighs besides key and value."""


def pieces(writes: Iterable[Write]) -> Iterator[Sequence[Write]]:
    """The writes in their order, none of the pieces empty; one that is too large stands alone."""
    piece: list[Write] = []
    size = 0
    for write in writes:
        added = _size(write)
        if piece and (len(piece) == MOST_WRITES or size + added > MOST_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(write)
        size += added
    if piece:
        yield piece


def _size(write: Write) -> int:
    value = "" if write.value is None else to_text(write.value)
    # The key is in the condition, the write, and the question that is asked when it fails.
    return 3 * _length(write.key) + _length(value) + EACH


def _length(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))
