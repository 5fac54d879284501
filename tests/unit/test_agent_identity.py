"""Who serves a node's name: the same agent again goes on at once, another one never beside it."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from podwire.agent.hold import Hold
from podwire.agent.nodename import NodeName
from podwire.agent.observe import Inbox
from podwire.agent.report import CHANGES, TTL_S, Reporter, due_with_news
from podwire.boundary import ABSENT
from podwire.drivers.boot import is_running, own_identity
from podwire.drivers.clock import SystemClock
from podwire.drivers.nodelock import NodeLock
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.errors import AgentUnavailable, Conflict, InUse
from podwire.model import keys
from podwire.model.config import AgentConfig
from podwire.model.identity import Identity
from podwire.model.nodestatus import parse_status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from podwire.boundary import Revision
    from podwire.model.resource import Wire

ONE = Identity(
    machine="m1",
    boot="b1",
    netns=1,
    process="7/100/5000",
    started=5000,
    since="2026-08-01T10:00:00Z",
    address="10.0.0.1",
)
LATER = replace(ONE, process="7/101/6000", started=6000, since="2026-08-01T10:00:10Z")
BOOTED = replace(LATER, boot="b2", netns=2, started=50)


@pytest.mark.parametrize(
    ("later", "running", "has_address", "expected"),
    [
        (LATER, False, True, True),  # killed and started again
        (LATER, True, True, False),  # beside it, with another socket
        (replace(LATER, netns=2), False, True, False),  # another node of one machine
        (replace(LATER, started=4000), False, True, False),  # it came later than we did
        (BOOTED, False, True, True),
        (BOOTED, False, False, False),  # a copied machine
        (replace(BOOTED, machine="m2"), False, True, False),
        (replace(BOOTED, since="2026-08-01T09:00:00Z"), False, True, False),
    ],
)
def test_only_an_earlier_run_of_the_same_agent_gives_way(
    later: Identity, running: bool, has_address: bool, expected: bool
) -> None:
    found = ONE.is_earlier(later, is_running=lambda _: running, has_address=lambda: has_address)
    assert found is expected


def test_machines_without_a_number_are_never_the_same() -> None:
    one, two = replace(ONE, machine=""), replace(BOOTED, machine="")
    assert not one.is_earlier(two, is_running=lambda _: False, has_address=lambda: True)


def test_an_identity_is_read_as_it_was_written() -> None:
    assert Identity.parse(ONE.as_json()) == ONE
    assert Identity.parse({**ONE.as_json(), "netns": "x"}) is None


def test_a_process_is_told_from_another_with_its_number() -> None:
    own = own_identity(SystemClock())
    assert is_running(own.process)
    namespace, pid, started = own.process.split("/")
    assert pid == str(os.getpid())
    assert not is_running(f"{namespace}/{pid}/{int(started) - 1}")
    assert not is_running(f"0/{pid}/{started}")


class ExpiringStore(SingleObjectStore):
    """One in which values could vanish, if anybody waited for it."""

    can_expire = property(lambda _: True)

    def keep(
        self,
        key: str,
        value: Wire,
        ttl_s: int,
        also: Mapping[str, Wire],
        seen: Revision | None = None,
    ) -> None:
        entry = self.get(key)
        if seen is not None and seen != (ABSENT if entry is None else entry.revision):
            raise Conflict(key)
        for each, content in {key: value, **also}.items():
            self.delete(each)
            self.create(each, content)


def reporter(store: ExpiringStore) -> Reporter:
    clock = SystemClock()
    made = Reporter(store, "here", clock, Hold(clock), min)
    made.address = lambda: "10.0.0.12"
    return made


def test_a_report_of_another_agent_is_left_alone() -> None:
    store = ExpiringStore()
    key = keys.node_status_key("here")
    store.create(key, {"time": "2026-08-01T10:00:00Z", "podwire": ONE.as_json()})
    before = store.get(key)
    with pytest.raises(InUse, match=r"serves Node here: 10\.0\.0\.1 \(boot b1.*10\.0\.0\.12"):
        reporter(store).report()
    with pytest.raises(InUse):
        reporter(store).refuse_other()
    assert store.get(key) == before
    store.delete(key)
    reporter(store).report()


class LateClock(SystemClock):
    """One that can be put forward."""

    late_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.late_s


def test_a_report_that_nobody_renews_counts_no_longer() -> None:
    store, clock = ExpiringStore(), LateClock()
    key = keys.node_status_key("here")
    one = Reporter(store, "here", clock, Hold(clock), min)
    for renewed in range(2):
        store.delete(key)
        store.create(key, {"uptime": renewed, "podwire": ONE.as_json()})
        with pytest.raises(InUse):
            one.report()
        clock.late_s += TTL_S - 1
        with pytest.raises(InUse):
            one.report()
    clock.late_s += 2
    one.report()


def test_felix_and_our_own_earlier_reports_are_replaced() -> None:
    store = ExpiringStore()
    store.create(keys.node_status_key("here"), {"time": "2026-08-01T10:00:00Z", "uptime": 1})
    one = reporter(store)
    one.report()
    one.report()
    reporter(store).report()  # the same process
    assert one.writes == 2


def test_a_report_says_whether_the_node_is_ready() -> None:
    store = ExpiringStore()
    one = reporter(store)
    for reasons in (("create ipip tunl0: No such device",), ()):
        one.reasons = partial(tuple, reasons)
        one.report()
        for key in (keys.node_status_key("here"), keys.last_status_key("here")):
            entry = store.get(key)
            assert entry is not None
            status = parse_status(entry.value)
            assert status is not None
            assert (status.ready, status.reasons) == (not reasons, reasons)


def test_news_are_told_soon_but_a_few_times_a_minute_at_most() -> None:
    news: deque[float] = deque(maxlen=CHANGES)
    assert due_with_news(130.0, 100.0, news) == 101.0
    assert due_with_news(100.5, 100.0, news) == 100.5
    news.extend((70.0, 80.0, 90.0, 99.0))
    assert due_with_news(125.0, 100.0, news) == 125.0
    assert due_with_news(135.0, 100.0, news) == 130.0


def test_of_two_agents_at_one_file_the_second_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "datastore.db")
    one, two = NodeLock(path, "here"), NodeLock(path, "here")
    one.take("the first")
    one.take("the first")
    NodeLock(path, "there").take("another node")
    with pytest.raises(InUse, match="serves Node here: the first; this one is the second"):
        two.take("the second")
    one.close()
    two.take("the second")
    two.close()


def test_who_stands_back_is_not_held_and_says_why() -> None:
    rung: list[int] = []
    hold = Hold(SystemClock(), on_release=lambda: rung.append(1))
    hold.stand_back(InUse("another agent serves Node here", fix="stop it"))
    assert (hold.active(), hold.is_asked(), rung) == (True, False, [])
    hold.refuse()
    with pytest.raises(AgentUnavailable, match="another agent serves"):
        hold.refuse_standing_back()
    hold.release()
    assert hold.active()
    hold.stand_back(None)
    assert not hold.active()
    hold.refuse_standing_back()


def test_a_node_is_not_renamed_by_a_new_default() -> None:
    store, clock = SingleObjectStore(), SystemClock()
    hold, inbox = Hold(clock), Inbox()
    config = AgentConfig(node="vms103.example.com", former_name="vms103")
    store.create(keys.node_key("vms103"), {})
    name = NodeName(store, config, clock, hold, inbox, min)
    with pytest.raises(InUse, match="write nodeName: vms103 into"):
        name.take()
    assert hold.active()
