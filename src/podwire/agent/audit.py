"""Audit: look again at what sends no event, and now and then at everything, a piece at a time."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from podwire.desired.entries import Sysctl, SysctlKey, Table
from podwire.drivers import sysctl
from podwire.drivers.netlink.scan import scan_routes
from podwire.errors import KernelError, PodwireError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.agent.apply import Counters
    from podwire.agent.kernel import Kernel
    from podwire.drivers.netlink.session import Session

PIECE = 100
"""Sysctls read in one go: about a millisecond."""
TABLES_EVERY = 6
"""Every how many audits the tables are listed too, though they send events."""


class Audit:
    """One audit after the other; `step` does a piece. Owned by the loop's thread."""

    def __init__(self, kernel: Kernel, session: Session, counters: Counters) -> None:
        self._kernel = kernel
        self._session = session
        self._counters = counters
        self._pieces: Iterator[int] | None = None

    @property
    def at_work(self) -> bool:
        """Whether an audit has been begun and not ended."""
        return self._pieces is not None

    def begin(self) -> None:
        """Start over."""
        self.abandon()
        self._counters.audits += 1
        self._pieces = self._run(tables=self._counters.audits % TABLES_EVERY == 0)

    def abandon(self) -> None:
        """Forget a half-done audit."""
        self._pieces = None
        self._kernel.trackers[Table.ROUTES].abandon_audit()

    def step(self) -> None:
        """Do one piece; a refused listing ends the audit, and the next one tries again."""
        if self._pieces is None:
            return
        try:
            drift = next(self._pieces, None)
        except PodwireError:
            drift = None
        if drift is None:
            self.abandon()
        else:
            self._counters.drift += drift

    def _run(self, *, tables: bool) -> Iterator[int]:
        yield from self._sysctls()
        if tables:
            for look in (self._links, self._neighbours, self._fdb):
                yield look()
            yield from self._routes()

    def _sysctls(self) -> Iterator[int]:
        tracker = self._kernel.trackers[Table.SYSCTLS]
        keys = iter(tuple(tracker.actual))
        while piece := list(islice(keys, PIECE)):
            yield sum(self._reads_otherwise(key) for key in piece if isinstance(key, SysctlKey))

    def _reads_otherwise(self, key: SysctlKey) -> bool:
        tracker = self._kernel.trackers[Table.SYSCTLS]
        if key not in tracker.actual:
            return False  # its device went while the audit was at work
        value = sysctl.read(key.name)
        return value is not None and tracker.saw(key, Sysctl(name=key.name, value=value))

    def _links(self) -> int:
        self._kernel.list_links(self._session)
        self._kernel.list_addresses(self._session)
        return 0

    def _neighbours(self) -> int:
        return self._kernel.resync(Table.NEIGHBOURS, self._session.neighbours())

    def _fdb(self) -> int:
        return self._kernel.resync(Table.FDB, self._session.fdb())

    def _routes(self) -> Iterator[int]:
        self._kernel.trackers[Table.ROUTES].begin_audit()
        try:
            for piece in scan_routes():
                yield sum(map(self._kernel.saw, piece))
        except KernelError:
            self._kernel.trackers[Table.ROUTES].abandon_audit()
            return
        yield self._kernel.end_audit(Table.ROUTES)
