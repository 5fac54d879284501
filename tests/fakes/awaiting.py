"""Waiting for something the kernel will do soon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.drivers.netlink.session import Session


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Ask again and again; a busy machine gets its time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def wait_until_links_carry(session: Session, *names: str) -> None:
    """Until frames sent there get through.

    Setting a link up only queues work: until the kernel's link watch has run, frames that are sent
    are thrown away without a word (net/core/link_watch.c, noop_qdisc in net/sched/sch_generic.c).
    """

    def carry() -> bool:
        found = [session.link(name) for name in names]
        return all(each is not None and each.operstate == "up" for each in found)

    wait_until(carry)
