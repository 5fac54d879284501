"""Who writes the routes is decided: in a cluster that Calico made, beside its nodes, or alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from podwire.cli.bgp_switch import switch
from podwire.drivers.store import ensure_cluster
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.drivers.store.standing import names, read_standing, require_decision
from podwire.errors import InUse, NotFound
from podwire.model import codec, keys
from podwire.model.handover import Handover, encode_handover
from podwire.model.node import Node, Routing
from podwire.model.pool import Use
from tests.fakes.calico_etcd import fill
from tests.fakes.ipam_world import HandClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.boundary import Store
    from podwire.model.pool import IPPool

POOL = keys.pool_key("default-ipv4-ippool")


def calicos(release: str = "bgp") -> Store:
    store = SingleObjectStore()
    fill(store, release)
    return store


def set_pool(store: Store, how: Callable[[IPPool], IPPool]) -> None:
    entry = store.get(POOL)
    assert entry is not None
    store.update(POOL, codec.encode(how(codec.decode_pool(POOL, entry.value))), entry.revision)


def take(store: Store, node: str, *complete: Routing) -> None:
    """An agent of ours serves the node, and has all routes of these."""
    handover = encode_handover(Handover(complete=frozenset(complete), missing="some block"))
    store.create(keys.applied_key(node), {"blocks": [], "handover": handover})


def routing(store: Store) -> tuple[Routing, Routing | None, bool]:
    cluster = read_standing(store).cluster
    return cluster.routing, cluster.next_routing, cluster.undecided


def told(store: Store, owner: Routing) -> str:
    return switch(store, owner, 1.0, HandClock())


def test_before_the_first_node_it_is_only_written_down() -> None:
    store = calicos()
    assert routing(store) == (Routing.AGENT, None, True)
    assert told(store, Routing.BIRD) == (
        "BIRDs write the routes, from Podwire's first node on: no agent serves one yet, so no"
        " route has changed; Calico's nodes go on as they are: node-1, node-2, node-3"
    )
    assert routing(store) == (Routing.BIRD, None, False)
    assert told(store, Routing.BIRD) == "BIRDs write the routes already"
    require_decision(store)


def test_agents_do_not_write_where_running_nodes_of_calico_know_bgp_alone() -> None:
    store = calicos()
    with pytest.raises(InUse, match=r"runs on node-1, node-2, node-3 .*default-ipv4-ippool"):
        told(store, Routing.AGENT)
    assert routing(store) == (Routing.AGENT, None, True)


def test_where_calico_has_ended_agents_may_write() -> None:
    store = calicos()
    for number in (1, 2, 3):
        store.delete(keys.node_status_key(f"node-{number}"))
    assert "agents write the routes" in told(store, Routing.AGENT)
    assert routing(store) == (Routing.AGENT, None, False)
    require_decision(store)


def test_beside_ours_calicos_nodes_are_never_waited_for() -> None:
    store = calicos()
    take(store, "node-2", Routing.BIRD)
    assert told(store, Routing.BIRD) == (
        "BIRDs write the routes now, on all nodes; Calico's nodes go on as they are: node-1, node-3"
    )
    assert routing(store)[0] is Routing.BIRD


def test_ours_are_waited_for() -> None:
    store = calicos()
    take(store, "node-2")
    with pytest.raises(InUse, match=r"\(node-2: some block\): nothing was switched"):
        told(store, Routing.BIRD)
    assert routing(store)[:2] == (Routing.AGENT, None)


def test_a_node_of_ours_without_a_word_is_waited_for() -> None:
    store = SingleObjectStore()
    with pytest.raises(NotFound):
        told(store, Routing.BIRD)
    ensure_cluster(store)
    require_decision(store)
    for name in ("here", "there"):
        node = Node(metadata=replace(read_standing(store).cluster.metadata, name=name))
        store.create(keys.node_key(name), codec.encode(node))
    take(store, "here", Routing.BIRD)
    with pytest.raises(InUse, match=r"\(there: its agent has not answered\)"):
        told(store, Routing.BIRD)


def test_an_agent_that_would_have_to_guess_names_the_command() -> None:
    with pytest.raises(InUse, match=r"node-1, node-2, node-3.*podwire bgp switch bird"):
        require_decision(calicos())


def test_whoever_serves_a_node_already_has_decided() -> None:
    store = calicos()
    take(store, "node-3")
    require_decision(store)


@pytest.mark.parametrize("release", ["vxlan", "newest"])
def test_vxlan_leaves_nothing_to_decide(release: str) -> None:
    require_decision(calicos(release))


def test_a_pool_that_carries_no_pods_leaves_nothing_to_decide() -> None:
    store = calicos()
    set_pool(store, lambda pool: replace(pool, allowed_uses=(Use.LOAD_BALANCER,)))
    require_decision(store)


def test_the_pods_of_a_disabled_pool_count() -> None:
    store = calicos()
    set_pool(store, lambda pool: replace(pool, disabled=True))
    with pytest.raises(InUse):
        require_decision(store)
    for entry in store.list(keys.AFFINITIES).entries:
        store.delete(entry.key)
    require_decision(store)


def test_a_broken_object_of_somebody_else_does_not_matter() -> None:
    store = calicos()
    entry = store.get(keys.node_key("node-1"))
    assert entry is not None
    store.update(entry.key, {**entry.value, "spec": "odd"}, entry.revision)
    assert read_standing(store).calicos == ("node-2", "node-3")


def test_many_names_are_counted() -> None:
    assert names(("a", "b", "c", "d", "e")) == "a, b, c and 2 more"
