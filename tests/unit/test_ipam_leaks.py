"""What is held to be leaked: decisions over values, and any history of looks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.ipam.leaks import (
    Attached,
    Carried,
    Suspicion,
    Tenant,
    is_carried,
    proof,
    tenants,
    weigh,
)
from podwire.model.block import Allocation, Block
from podwire.model.endpoint import host_interface_of_pod
from tests.fakes.ipam_world import World, asked, pool

if TYPE_CHECKING:
    from collections.abc import Mapping

CIDR = ip_network("10.0.0.0/29")
POD = {"node": "a", "namespace": "demo", "pod": "web-0"}
NOTHING = Carried(veths=frozenset(), unmarked=frozenset(), boot="b1")


def block(**allocations: Allocation) -> Block:
    """Ordinals as `o0`, `o1` …"""
    taken = {int(name[1:]): allocation for name, allocation in allocations.items()}
    return Block(cidr=CIDR, node="a", allocations=taken)


def tenant(handle: str = "net.c1", **addresses: int) -> Tenant:
    found = {ip_address(f"10.0.0.{name[1:]}"): number for name, number in addresses.items()}
    return Tenant(handle=handle, title="demo/web-0", namespace="demo", pod="web-0", addresses=found)


@pytest.mark.parametrize(
    "allocation",
    [
        Allocation(handle="net.c1", attributes={**POD, "node": "b"}),
        Allocation(handle="net.c1", attributes={"node": "a", "pod": "web-0"}),
        Allocation(handle="net.c1", attributes={"node": "a", "type": "vxlanTunnelAddress"}),
        Allocation(handle="net.c1", attributes={}),
        Allocation(handle=None, attributes=POD),
        Allocation(handle="net.c1", attributes=POD, released_at="2026-11-22T00:00:00Z"),
        Allocation(handle="net.c1", attributes=POD, alternate={"node": "b"}),
        Allocation(handle="net.vmi.demo.vm-a", attributes={**POD, "vmi-name": "vm-a"}),
    ],
    ids=[
        "of another node",
        "no namespace",
        "tunnel",
        "no owner",
        "no handle",
        "rests",
        "two",
        "machine",
    ],
)
def test_only_pods_of_this_node_are_looked_at(allocation: Allocation) -> None:
    assert tenants([block(o0=allocation)], "a", {}) == ()


def test_all_addresses_of_a_handle_are_one_tenant() -> None:
    one = Allocation(handle="net.c1", attributes={**POD, "boot": "b1"}, sequence=7)
    two = Allocation(handle="net.c1", attributes=POD, sequence=8)
    (found,) = tenants([block(o1=one, o4=two)], "a", {})
    assert found.addresses == {ip_address("10.0.0.1"): 7, ip_address("10.0.0.4"): 8}
    assert (found.title, found.boot) == ("demo/web-0", "b1")


def test_an_endpoint_without_address_is_a_tenant_too() -> None:
    known = Attached(container_id="c9", interface="eth0", host_interface="cali9", title="x/y")
    (found,) = tenants([], "a", {"net.c9": known})
    assert (found.title, dict(found.addresses)) == ("x/y", {})


@pytest.mark.parametrize(
    ("carried", "there"),
    [
        ({}, False),
        ({"veths": {("c1", "eth0")}}, True),
        ({"veths": {("a.c1", "eth0")}}, True),
        ({"veths": {("1", "eth0"), ("c11", "eth0")}}, False),
        ({"unmarked": {host_interface_of_pod("demo", "web-0")}}, True),
        ({"unmarked": {"calic1"}}, True),
        ({"unmarked": {"cali4711"}}, False),
    ],
)
def test_a_veth_is_recognised(carried: Mapping[str, set[object]], there: bool) -> None:
    what = Carried(
        veths=frozenset(carried.get("veths", ())),  # type: ignore[arg-type]
        unmarked=frozenset(carried.get("unmarked", ())),  # type: ignore[arg-type]
        boot="b1",
    )
    assert is_carried(tenant("net.a.c1", o0=1), what) is there


def test_an_old_handle_that_names_no_container_is_known_by_its_address() -> None:
    known = Attached(container_id="c1", interface="eth0", host_interface="cali1", title="x/y")
    allocation = Allocation(handle="demo.web-0", attributes=POD)
    address = ip_address("10.0.0.3")
    (found,) = tenants([block(o3=allocation)], "a", {}, {address: known})
    assert found.attached is known
    assert is_carried(
        found, Carried(veths=frozenset({("c1", "eth0")}), unmarked=frozenset(), boot="b1")
    )


def test_of_two_networks_of_a_container_only_the_one_that_went_is_in_doubt() -> None:
    known = Attached(container_id="c1", interface="eth1", host_interface="cali1", title="x/y")
    (found,) = tenants([], "a", {"other.c1": known})
    assert not is_carried(
        found, Carried(veths=frozenset({("c1", "eth0")}), unmarked=frozenset(), boot="b1")
    )


def test_what_speaks_for_a_leak_is_told() -> None:
    old = Tenant(handle="net.c1", title="demo/web-0", boot="b0")
    assert proof(old, NOTHING, valid={"c2"}) == (
        "no veth of demo/web-0 (net.c1) is in the kernel",
        "the machine was booted since the address was given out",
        "the runtime's last GC does not name it",
    )
    same = Tenant(handle="net.c1", title="demo/web-0", boot="b1")
    assert len(proof(same, NOTHING, valid={"c1"})) == len(proof(same, NOTHING)) == 1


LOOKS = st.lists(
    st.tuples(
        st.floats(0.1, 40),  # until the look
        st.booleans(),  # carried then
        st.integers(0, 2),  # the allocation's sequence number then
    ),
    min_size=1,
    max_size=12,
)


@given(looks=LOOKS, grace_s=st.sampled_from([0.0, 10.0, 60.0]))
def test_only_what_held_at_every_look_of_the_grace_period_is_ripe(
    looks: list[tuple[float, bool, int]], grace_s: float
) -> None:
    now = 0.0
    suspicions: Mapping[str, Suspicion] = {}
    history: list[tuple[float, bool, int]] = []
    for wait, carried, sequence in looks:
        now += wait
        history.append((now, carried, sequence))
        found = [] if carried else [(tenant(o0=sequence), ("gone",))]
        suspicions = weigh(found, suspicions, now)
        # Against the whole history: the unbroken run of looks that saw this very allocation gone.
        run = []
        for moment, was, number in reversed(history):
            if was or number != sequence:
                break
            run.append(moment)
        ripe = {h for h, each in suspicions.items() if each.is_ripe(now, grace_s)}
        assert bool(ripe) == (len(run) >= 2 and run[0] - run[-1] >= grace_s)


def test_a_suspicion_that_is_cleared_is_forgotten() -> None:
    before = weigh([(tenant(o0=1), ("gone",))], {}, 0.0)
    assert before.keys() == {"net.c1"}
    assert weigh([], before, 1.0) == {}


@pytest.mark.parametrize("batches", [True, False], ids=["batch", "single"])
def test_an_address_that_was_given_out_again_is_never_released(batches: bool) -> None:
    """To the very same handle, even: only the sequence number tells."""
    world = World(pool("p", "10.0.0.0/29"), batches=batches)
    node = world.node("a")
    first = node.assign(asked("net.c1"))
    node.release_handle("net.c1")
    again = node.assign(asked("net.c1", address=first.address))
    assert node.release_handle("net.c1", seen={first.address: first.sequence}) == ()
    assert world.users() == {first.address: "net.c1"}
    assert node.release_handle("net.c1", seen={first.address: again.sequence}) == (first.address,)
    assert (world.users(), world.handles()) == ({}, {})


@pytest.mark.parametrize("batches", [True, False], ids=["batch", "single"])
def test_all_addresses_of_a_handle_are_released_or_none(batches: bool) -> None:
    world = World(pool("p", "10.0.0.0/29"), batches=batches)
    node = world.node("a")
    one, two = node.assign(asked("net.c1")), node.assign(asked("net.c1"))
    assert node.release_handle("net.c1", seen={one.address: one.sequence}) == ()
    assert len(world.users()) == 2
    seen = {each.address: each.sequence for each in (one, two)}
    assert set(node.release_handle("net.c1", seen=seen)) == set(seen)
