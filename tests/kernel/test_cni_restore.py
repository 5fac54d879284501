"""A datastore that has forgotten pods which live: told of them again, or said which cannot be."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from podwire.agent import writeback
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.ipam.request import AssignRequest
from podwire.ipam.service import IPAM
from podwire.model import keys
from tests.kernel.cni_node import NODE, CNINode, make_pod, make_uplink, pings, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


ARGS = {"ARGS": "K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web-0"}
LATER = (keys.ENDPOINTS, keys.BLOCKS4, keys.AFFINITIES, keys.HANDLES)
"""What was written after the backup."""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CNINode]:
    monkeypatch.setattr(writeback, "OTHERS_S", 0.1)  # there are no others
    made = CNINode(tmp_path)
    made.add_pool(block_size=29)
    made.add_node()
    make_uplink()
    for name in ("c1", "c2"):
        make_pod(name)
    made.start()
    yield made
    made.stop()


def forget(node: CNINode) -> None:
    for prefix in LATER:
        for entry in node.store.list(prefix).entries:
            node.store.delete(entry.key)


def give(node: CNINode, address: str, to: str) -> None:
    """Another node, or this one before it went wrong, gives the address to another pod."""
    told = {"node": to, "namespace": "demo", "pod": "other"}
    request = AssignRequest(handle="pods.other", address=ip_address(address), attributes=told)
    IPAM(node.store, to, SystemClock(), SystemDice()).assign(request)


def notice(node: CNINode) -> None:
    """As an agent that ran on does, or one that was started since."""
    node.writeback.on_restored(0.0)
    wait_settled(node)


def start_anew(node: CNINode) -> None:
    node.stop()
    node.start()
    wait_settled(node)


def wait_settled(node: CNINode) -> None:
    wait_for(lambda: not node.writeback.is_settling, "all was looked at")


def keys_of(node: CNINode) -> set[str]:
    return {entry.key for entry in node.store.list("/calico/").entries}


@pytest.mark.parametrize("look", [notice, start_anew])
def test_forgotten_pods_are_written_back(node: CNINode, look: Callable[[CNINode], None]) -> None:
    addresses = sorted([node.add("c1").address, node.add("c2", "web-0").address])
    before = keys_of(node)
    forget(node)
    look(node)
    assert keys_of(node) == before
    assert node.allocations() == addresses
    assert node.writeback.written == 2
    assert node.writeback.concerns() == ()
    assert pings("c1", "192.0.2.1")
    assert pings("c2", "192.0.2.1")
    assert node.delete("c1").exit == node.delete("c2", **ARGS).exit == 0
    assert node.leftovers() == {}


@pytest.mark.parametrize("look", [notice, start_anew])
def test_an_address_that_was_given_away_is_said(
    node: CNINode, look: Callable[[CNINode], None]
) -> None:
    here = node.add("c1", "web-0")
    forget(node)
    give(node, here.address, "node-2")
    look(node)
    (concern,) = node.writeback.concerns()
    assert "demo/web-0" in concern
    assert f"{here.address} has become the address of demo/other on node node-2" in concern
    assert len(node.veths()) == 1
    assert node.delete("c1", **ARGS).exit == 0
    assert node.writeback.concerns() == ()
    assert node.allocations() == [here.address]
    assert list(node.stored(keys.HANDLES)) == [keys.handle_key("pods.other")]


def test_a_pod_that_went_after_the_backup_gives_way(node: CNINode) -> None:
    here = node.add("c1", "web-0")
    forget(node)
    give(node, here.address, NODE)
    notice(node)
    assert node.writeback.concerns() == ()
    assert list(node.stored(keys.HANDLES)) == [keys.handle_key("pods.c1")]
    assert node.allocations() == [here.address]
    assert len(node.stored(keys.ENDPOINTS)) == 1
    assert node.delete("c1", **ARGS).exit == 0
    assert node.leftovers() == {}


def test_an_older_container_of_a_forgotten_pod_goes(node: CNINode) -> None:
    """Both were attached after the backup, and the DEL of the first was still to come."""
    node.add("c1", "web-0")
    newer = node.add("c2", "web-0")
    forget(node)
    start_anew(node)
    assert node.allocations() == [newer.address]
    assert list(node.stored(keys.HANDLES)) == [keys.handle_key("pods.c2")]
    assert len(node.veths()) == 1
    assert pings("c2", "192.0.2.1")
