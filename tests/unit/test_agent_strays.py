"""Whether an address explains a veth is asked in a thread, however long the datastore takes."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.agent.strays import Strays, has_address
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.errors import DatastoreUnavailable
from podwire.model import keys
from podwire.model.endpoint import AttachmentKey, LinkOwner, link_alias, parse_link_alias
from podwire.model.link import Link
from tests.fakes.ipam_world import WatchedStore

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = AttachmentKey(network="pods", container_id="c1", interface="eth0")
ALIAS = link_alias(KEY, "demo/web-0")
LINK = Link(index=7, name="cali1", kind="veth", mtu=1500, up=True, carrier=True, alias=ALIAS)


class Asked:
    """Strays whose datastore hangs until it is let go."""

    def __init__(self, answer: Callable[[], bool]) -> None:
        self._answer = answer
        self._done = threading.Event()
        self.let_go = threading.Event()
        self.owners: list[LinkOwner] = []
        self.strays = Strays(self._has_address, self._done.set)

    def _has_address(self, owner: LinkOwner) -> bool:
        assert self.let_go.wait(20)
        self.owners.append(owner)
        return self._answer()

    def wait(self) -> None:
        assert self._done.wait(20)
        self._done.clear()


def away() -> bool:
    raise DatastoreUnavailable("away")


def test_nobody_waits_for_an_answer_and_each_is_given_once() -> None:
    asked = Asked(lambda: False)
    assert [asked.strays.judge([LINK]) for _ in range(3)] == [[]] * 3
    asked.let_go.set()
    asked.wait()
    assert [owner.key for owner in asked.owners] == [KEY]
    assert asked.strays.judge([LINK]) == [(LINK, False)]
    assert asked.strays.judge([LINK]) == []  # asked anew
    asked.wait()


def test_an_answer_counts_for_what_still_is_a_stray_only() -> None:
    asked = Asked(lambda: False)
    asked.let_go.set()
    asked.strays.judge([LINK])
    asked.wait()
    assert asked.strays.judge([replace(LINK, alias="podwire c2 demo/web-0 eth0")]) == []
    asked.wait()


def test_a_datastore_that_is_away_explains_everything() -> None:
    asked = Asked(away)
    asked.let_go.set()
    asked.strays.judge([LINK])
    asked.wait()
    assert asked.strays.judge([LINK]) == [(LINK, True)]


def test_one_key_is_read_where_the_alias_tells_the_network() -> None:
    store = WatchedStore(SingleObjectStore())
    owner = parse_link_alias(LINK.alias)
    assert owner is not None
    assert not has_address(store, owner)
    store.create(keys.handle_key("other.c1"), {})
    assert not has_address(store, owner)
    store.create(keys.handle_key("pods.c1"), {})
    assert has_address(store, owner)
    assert store.reads == 3


def test_without_a_network_the_handle_is_looked_for() -> None:
    store = SingleObjectStore()
    owner = parse_link_alias("podwire c1 demo/web-0 eth0")
    assert owner is not None
    for other in ("pods.xc1", "pods.c12"):
        store.create(keys.handle_key(other), {})
    assert not has_address(store, owner)
    for handle in ("k8s-pod-network.c1", "c1"):
        key = keys.handle_key(handle)
        store.create(key, {})
        assert has_address(store, owner)
        store.delete(key)
