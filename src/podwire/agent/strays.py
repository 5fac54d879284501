"""Strays: veths of ours without an endpoint; whether an address explains them, IPAM is asked.

A datastore that hangs may take its time over that, so the loop never asks itself: a thread does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from podwire.errors import PodwireError
from podwire.model import keys
from podwire.model.endpoint import parse_link_alias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podwire.boundary import Store
    from podwire.model.endpoint import LinkOwner
    from podwire.model.link import Link


class Strays:
    """A thread that sleeps until there is a stray; begun with the first one."""

    def __init__(
        self, has_address: Callable[[LinkOwner], bool], on_done: Callable[[], None]
    ) -> None:
        self._has_address = has_address
        self._on_done = on_done
        self._changed = threading.Condition()
        self._asked: tuple[Link, ...] = ()
        self._answers: dict[tuple[int, str | None], bool] = {}
        self._thread: threading.Thread | None = None

    def judge(self, links: Iterable[Link]) -> list[tuple[Link, bool]]:
        """Those of the strays of which it is known whether an address explains them.

        An answer is given once, and only of what still is a stray; for the rest it is asked now.
        """
        with self._changed:
            answers, self._answers = self._answers, {}
            known, missing = [], []
            for link in links:
                explained = answers.get((link.index, link.alias))
                if explained is None:
                    missing.append(link)
                else:
                    known.append((link, explained))
            if missing and not self._asked:
                self._ask(tuple(missing))
        return known

    def _ask(self, links: tuple[Link, ...]) -> None:
        self._asked = links
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="strays", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._asked:
                    self._changed.wait()
                asked = self._asked
            answers = {(link.index, link.alias): self._is_explained(link) for link in asked}
            with self._changed:
                self._answers, self._asked = answers, ()
            self._on_done()

    def _is_explained(self, link: Link) -> bool:
        owner = parse_link_alias(link.alias)
        try:
            return owner is None or self._has_address(owner)
        except PodwireError:
            return True  # the datastore is away: nobody knows


def has_address(store: Store, owner: LinkOwner) -> bool:
    """Whether IPAM knows addresses of that container: its veth then waits for its own DEL.

    Raises:
        DatastoreUnavailable: away.
    """
    if owner.network:
        return store.get(keys.handle_key(owner.key.handle)) is not None
    # The alias of a pod of Calico's whose handle named no network, or of an older version.
    entries = store.list(keys.HANDLES).entries
    ids = (keys.parse_handle_key(entry.key) for entry in entries)
    return any(f".{handle or ''}".endswith(f".{owner.container_id}") for handle in ids)
