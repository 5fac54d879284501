"""Writing what a command has decided: at once where the datastore takes that, else in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.boundary import Verb
from podwire.drivers.store.pieces import pieces
from podwire.errors import DatastoreUnavailable, InUse, PodwireError, Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Store, Write


def write_all(
    store: Store, writes: Sequence[Write], *, again: str, guards: Sequence[Write] = ()
) -> None:
    """Write all or none; in order, piece by piece, only where the store takes less at once.

    `guards` are written with the first of them (guards.py).

    Raises:
        Stale: somebody else was quicker; nothing was written, decide again.
        DatastoreUnavailable, InUse: a later piece was refused; says how far it came, and `again`,
            the way to go on.
    """
    whole = (*guards, *writes)
    if store.can_batch:
        try:
            store.batch((*writes, *guards))
        except Unsupported:
            if len(whole) == 1:
                raise
        else:
            return
    done = 0
    for piece in pieces(whole) if store.can_batch else [(each,) for each in whole]:
        try:
            _write(store, piece)
        except PodwireError as error:
            if not done:
                raise
            kind = DatastoreUnavailable if isinstance(error, DatastoreUnavailable) else InUse
            count = max(0, done - len(guards))
            raise kind(
                f"{count} of {len(writes)} objects were written, then: {error.message}", fix=again
            ) from None
        done += len(piece)


def _write(store: Store, piece: Sequence[Write]) -> None:
    if store.can_batch:
        store.batch(piece)
        return
    (write,) = piece
    if write.verb is Verb.DELETE:
        store.delete(write.key, write.revision)
    elif write.revision is None:
        store.create(write.key, write.value or {})
    else:
        store.update(write.key, write.value or {}, write.revision)
