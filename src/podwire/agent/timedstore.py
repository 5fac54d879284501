"""A store that is timed: how long the datastore takes, what it refuses, when it last answered."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from podwire.agent.timing import STORE_BOUNDS_S, Histograms
from podwire.errors import Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from podwire.boundary import Change, Clock, Entry, Listing, Revision, Store, Watch, Write
    from podwire.model.resource import Wire

T = TypeVar("T")


class TimedStore:
    """A Store that passes everything on to another one."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.durations = Histograms(STORE_BOUNDS_S)
        """By operation (get, list, create, update, delete, batch, keep, let go, check, watch) and
        outcome: ok; conflict, when what we knew was old; failed, when the datastore was away, full
        or slow."""
        self.heard_at = clock.monotonic()
        """When it last answered, or told of a change (monotonic)."""

    @property
    def can_batch(self) -> bool:
        """See `Store.can_batch`."""
        return self._store.can_batch

    def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        return self._timed("get", lambda: self._store.get(key))

    def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        return self._timed("list", lambda: self._store.list(prefix))

    def create(self, key: str, value: Wire) -> Entry:
        """See `Store.create`."""
        return self._timed("create", lambda: self._store.create(key, value))

    def update(self, key: str, value: Wire, revision: Revision) -> Entry:
        """See `Store.update`."""
        return self._timed("update", lambda: self._store.update(key, value, revision))

    def delete(self, key: str, revision: Revision | None = None) -> None:
        """See `Store.delete`."""
        return self._timed("delete", lambda: self._store.delete(key, revision))

    def batch(self, writes: Sequence[Write]) -> Sequence[Entry | None]:
        """See `Store.batch`."""
        return self._timed("batch", lambda: self._store.batch(writes))

    @property
    def can_expire(self) -> bool:
        """See `Store.can_expire`."""
        return self._store.can_expire

    def keep(
        self,
        key: str,
        value: Wire,
        ttl_s: int,
        also: Mapping[str, Wire],
        seen: Revision | None = None,
    ) -> None:
        """See `Store.keep`."""
        return self._timed("keep", lambda: self._store.keep(key, value, ttl_s, also, seen))

    def let_go(self, key: str) -> None:
        """See `Store.let_go`."""
        return self._timed("let go", lambda: self._store.let_go(key))

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `Store.together`."""
        with self._store.together():
            yield

    def check_writable(self) -> None:
        """See `Store.check_writable`."""
        return self._timed("check", self._store.check_writable)

    def watch(self, prefix: str, revision: Revision) -> Watch:
        """See `Store.watch`."""
        return TimedWatch(self._timed("watch", lambda: self._store.watch(prefix, revision)), self)

    def close(self) -> None:
        """See `Store.close`."""
        self._store.close()

    def heard(self) -> None:
        """The datastore has said something."""
        self.heard_at = self._clock.monotonic()

    def _timed(self, operation: str, act: Callable[[], T]) -> T:
        began = self._clock.monotonic()
        outcome = "failed"
        try:
            done = act()
            outcome = "ok"
        except Stale:
            outcome = "conflict"
            raise
        finally:
            ended = self._clock.monotonic()
            self.durations.observe((operation, outcome), ended - began)
            if outcome != "failed":
                self.heard_at = ended
        return done


class TimedWatch:
    """A Watch that notes when it heard of something."""

    def __init__(self, watch: Watch, store: TimedStore) -> None:
        self._watch = watch
        self._store = store

    def wait(self, timeout_s: float | None = None) -> Sequence[Change]:
        """See `Watch.wait`."""
        changes = self._watch.wait(timeout_s)
        if changes:
            self._store.heard()
        return changes

    @property
    def position(self) -> Revision:
        """See `Watch.position`."""
        return self._watch.position

    def close(self) -> None:
        """See `Watch.close`."""
        self._watch.close()
