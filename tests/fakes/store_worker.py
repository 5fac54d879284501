"""A process that writes to a shared SQLite datastore until it is stopped.

`python -m tests.fakes.store_worker FILE NAME` counts `/counter` up and leaves one mark
`/mark/NAME/N` for each step, both in one batch: after any crash there are as many marks as counts.
"""

from __future__ import annotations

import sys
from itertools import count

from podwire.boundary import Verb, Write
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.errors import Conflict


def main(path: str, name: str) -> None:
    store = SQLiteStore(path)
    for step in count():
        while store.get("/stop") is None:
            entry = store.get("/counter")
            assert entry is not None
            counted = {"n": entry.value["n"] + 1}
            update = Write(verb=Verb.UPDATE, key="/counter", value=counted, revision=entry.revision)
            mark = Write(verb=Verb.CREATE, key=f"/mark/{name}/{step:06}", value=counted)
            try:
                store.batch([update, mark])
            except Conflict:
                continue
            break
        else:
            break
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
