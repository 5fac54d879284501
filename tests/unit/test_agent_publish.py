"""Publications and waits, on a real store in memory; time is counted by hand."""

from __future__ import annotations

import threading
from ipaddress import ip_network

import pytest

from podwire.agent.hold import Hold
from podwire.agent.publish import KEPT, Line, Publication, Publisher
from podwire.drivers.clock import SystemClock
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.errors import AgentUnavailable
from podwire.model import keys
from podwire.model.handover import Handover, decode_handover
from podwire.model.node import Routing

BLOCK = ip_network("10.244.1.0/26")
OTHER = ip_network("10.244.2.0/26")


def publisher(store: SingleObjectStore, node: str = "here", *others: str) -> Publisher:
    made = Publisher(store, node, SystemClock())
    made.watch_over(lambda: others)
    return made


def test_a_publication_is_written_once() -> None:
    store = SingleObjectStore()
    here = publisher(store)
    assert here.publish(Line(blocks=("10.244.1.0/26",)))
    assert not here.publish(Line(blocks=("10.244.1.0/26",)))
    entry = store.get(keys.applied_key("here"))
    assert entry is not None
    assert entry.value == {"blocks": ["10.244.1.0/26"]}
    assert here.writes == 1


def test_a_block_everybody_knows_is_not_waited_for() -> None:
    store = SingleObjectStore()
    publisher(store, "there").publish(Line(blocks=(str(BLOCK),)))
    here = publisher(store, "here", "there")
    assert here.wait_applied(BLOCK, timeout_s=0)
    assert here.waits == 0


def test_a_wait_ends_with_the_last_answer() -> None:
    store = SingleObjectStore()
    here = publisher(store, "here", "a", "b")
    publisher(store, "a").publish(Line(blocks=(str(BLOCK),)))
    answer = threading.Timer(
        0.05, lambda: publisher(store, "b").publish(Line(blocks=(str(BLOCK),)))
    )
    answer.start()
    assert here.wait_applied(BLOCK, timeout_s=30)
    answer.join()
    assert (here.waits, here.timeouts) == (1, 0)


def test_a_silent_node_is_waited_for_once() -> None:
    store = SingleObjectStore()
    here = publisher(store, "here", "silent")
    assert not here.wait_applied(BLOCK, timeout_s=0.01)
    assert here.wait_applied(OTHER, timeout_s=30)
    assert (here.waits, here.timeouts) == (1, 1)
    publisher(store, "silent").publish(Line(blocks=("10.244.9.0/26",)))
    assert not here.wait_applied(ip_network("10.244.3.0/26"), timeout_s=0.01)


def test_the_publication_keeps_the_latest() -> None:
    publication = Publication()
    prefixes = [ip_network((n << 6, 26)) for n in range(KEPT + 5)]
    publication.add(prefixes)
    assert publication.is_news
    taken = publication.take().blocks
    assert len(taken) == KEPT
    assert taken[-1] == str(prefixes[-1])
    publication.add(prefixes)
    known_already = publication.is_news
    publication.drop(prefixes[0])
    assert (known_already, publication.is_news) == (False, True)


def test_how_far_a_switch_is_stands_beside_the_blocks_while_there_is_one() -> None:
    store, publication = SingleObjectStore(), Publication()
    here = publisher(store)
    here.publish(publication.take())
    handover = Handover(complete=frozenset({Routing.AGENT}), missing="BIRD is away")
    publication.tell_handover(handover)
    assert publication.is_news
    here.publish(publication.take())
    entry = store.get(keys.applied_key("here"))
    assert entry is not None
    assert decode_handover(entry.value) == handover
    publication.tell_handover(None)
    here.publish(publication.take())
    entry = store.get(keys.applied_key("here"))
    assert entry is not None
    assert entry.value == {"blocks": []}


class HandClock(SystemClock):
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_hold_ends_by_itself_or_by_release() -> None:
    clock = HandClock()
    released: list[bool] = []
    hold = Hold(clock, on_release=lambda: released.append(True))
    hold.refuse()
    hold.start(60)
    clock.seconds = 59
    assert hold.active()
    assert hold.remaining_s() == 1
    with pytest.raises(AgentUnavailable, match="held"):
        hold.refuse()
    clock.seconds = 60
    assert not hold.active()
    hold.start()
    clock.seconds = 10_000
    assert hold.active()
    assert hold.remaining_s() is None
    hold.release()
    assert not hold.active()
    assert released == [True]
