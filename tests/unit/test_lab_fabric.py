"""The fabric is a list of operations that read as the commands a person would type."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podwire.lab.fabric import AddNamespace, compute_fabric
from podwire.lab.topology import Topology


def commands(topology: Topology) -> list[str]:
    return [
        operation.describe() for step in compute_fabric(topology) for operation in step.operations
    ]


def test_one_node_in_the_words_of_ip() -> None:
    assert commands(Topology(size=1)) == [
        "ip netns add underlay",
        "ip -n underlay link set lo up",
        "ip netns exec underlay sysctl -qw net/ipv4/ip_forward=1",
        "ip netns exec underlay sysctl -qw net/ipv4/conf/all/send_redirects=0",
        "ip -n underlay link add br0 type bridge",
        "ip netns exec underlay sysctl -qw net/ipv4/conf/br0/send_redirects=0",
        "ip -n underlay addr add 192.168.26.2/24 dev br0",
        "ip -n underlay link set br0 up",
        "ip netns add vms100",
        "ip -n vms100 link set lo up",
        "ip -n vms100 link add ens32 type veth peer name vms100 netns underlay",
        "ip -n underlay link set vms100 master br0",
        "ip -n underlay link set vms100 up",
        "ip -n vms100 addr add 192.168.26.100/24 dev ens32",
        "ip -n vms100 link set ens32 up",
        "ip -n vms100 route add default via 192.168.26.2 dev ens32",
    ]


def test_each_subnet_has_its_switch() -> None:
    lines = commands(Topology(size=2, subnets=2))
    assert "ip -n underlay addr add 192.168.27.2/24 dev br1" in lines
    assert "ip -n underlay link set vms101 master br1" in lines
    assert "ip -n vms101 route add default via 192.168.27.2 dev ens32" in lines


@given(st.integers(1, 30), st.integers(1, 2))
def test_a_namespace_is_made_before_anything_in_it(size: int, subnets: int) -> None:
    made = set()
    for step in compute_fabric(Topology(size=size, subnets=subnets)):
        for operation in step.operations:
            if isinstance(operation, AddNamespace):
                made.add(operation.name)
            else:
                assert operation.namespace in made
    assert len(made) == size + 1
