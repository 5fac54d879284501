"""The catalogue of faults, which pods they are about, and the operations they consist of."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from podwire.errors import BadInput
from podwire.lab.fault import Fault, Place, get_fault
from podwire.lab.fault_catalogue import FAULTS
from podwire.lab.fault_ends import Wish, choose_ends
from podwire.lab.fault_facts import Device, End, Facts, Impossible, Kernel, clean_route
from podwire.lab.fault_operations import Operation, touched, words
from podwire.lab.faults import RECIPES, operations
from podwire.model.pool import Encapsulation
from podwire.trace.schema import Disposition

ROWS = {*range(1, 8), 9, *range(11, 17), 18, *range(21, 25), 26, 27, 28, 29, 30, 32, 34, 35, 36}
ROWS |= {*range(38, 43), *range(44, 48), *range(49, 54), 55, 56}


def end(pod: str, node: str, last: int) -> End:
    return End(
        pod=f"demo/{pod}",
        node=node,
        ip=IPv4Address(f"10.244.{last}.1"),
        interface="eth0",
        host_interface=f"cali{pod}",
    )


A, B, C = end("a", "n1", 1), end("b", "n2", 2), end("c", "n1", 1)


def pod_kernel(owner: End) -> Kernel:
    address = f"{owner.ip}/32"
    return Kernel(
        place=owner.pod,
        routes=("default via 169.254.1.1 dev eth0", "169.254.1.1 dev eth0 scope link"),
        devices={"eth0": Device(name="eth0", index=2, mtu=1450, mac="02::", addresses=(address,))},
        sysctls={"net/ipv4/icmp_echo_ignore_all": "0"},
    )


def node_kernel(owner: End, other: End, last: int, other_last: int) -> Kernel:
    devices = ("ens32", "vxlan.calico", owner.host_interface)
    tunnel = Device(
        name="vxlan.calico",
        index=3,
        mtu=1450,
        mac=f"66:00:00:00:00:0{last}",
        details={"id": 4096, "local": f"192.168.26.{last}", "link": "ens32", "port": 4789},
        addresses=(f"10.244.{last}.0/32",),
    )
    settings = {"forwarding": "1", "rp_filter": "0", "proxy_arp": "1"}
    return Kernel(
        place=owner.node,
        routes=(
            "default via 192.168.26.2 dev ens32",
            f"10.244.{other_last}.0/26 via 10.244.{other_last}.0 dev vxlan.calico proto 80 onlink",
            f"blackhole 10.244.{last}.0/26 proto 80",
            f"{owner.ip} dev {owner.host_interface} proto 80 scope link",
        ),
        neighbours=(
            f"10.244.{other_last}.0 dev vxlan.calico lladdr 66:00:00:00:00:0{other_last} PERMANENT",
            f"{owner.ip} dev {owner.host_interface} lladdr 02:00:00:00:00:01 PERMANENT",
        ),
        fdb=(f"66:00:00:00:00:0{other_last} dst 192.168.26.{other_last} self permanent",),
        devices={
            "ens32": Device(name="ens32", index=2, mtu=1500, mac="46::"),
            "vxlan.calico": tunnel,
            owner.host_interface: Device(name=owner.host_interface, index=4, mtu=1450, mac="ee::"),
        },
        sysctls={
            "net/ipv4/ip_forward": "1",
            "net/ipv4/conf/all/accept_redirects": "0",
            f"net/ipv4/neigh/{owner.host_interface}/proxy_delay": "0",
            **{
                f"net/ipv4/conf/{device}/{name}": value
                for device in devices
                for name, value in settings.items()
            },
        },
    )


def facts(encapsulation: Encapsulation = Encapsulation.VXLAN) -> Facts:
    return Facts(
        encapsulation=encapsulation,
        source=A,
        destination=B,
        kernels={
            A.pod: pod_kernel(A),
            B.pod: pod_kernel(B),
            A.node: node_kernel(A, B, 1, 2),
            B.node: node_kernel(B, A, 2, 1),
        },
        addresses={
            "n1": IPv4Interface("192.168.26.1/24"),
            "n2": IPv4Interface("192.168.26.2/24"),
        },
        uplink="ens32",
        programs=frozenset({"iptables-legacy"}),
    )


def test_names_are_unique_and_short_words() -> None:
    names = [fault.name for fault in FAULTS]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert [name for name in names if not re.fullmatch(r"[a-z]+(-[a-z]+){1,4}", name)] == []


def test_the_catalogue_has_every_row_a_namespace_can_hold() -> None:
    assert {fault.number for fault in FAULTS} - {None} == ROWS


def test_ids_belong_to_one_meaning() -> None:
    assert [f.id for f in FAULTS if re.fullmatch(r"[a-z]+(\.[a-z]+(-[a-z]+)*)", f.id) is None] == []
    assert {fault.disposition for fault in FAULTS} <= {one.value for one in Disposition}


def test_traps_are_marked() -> None:
    assert {fault.number for fault in FAULTS if fault.is_trap} == {2, 42}
    assert {f.disposition for f in FAULTS if f.is_trap} == {"DELIVERED_AND_ANSWERED"}


def test_each_fault_has_a_recipe_and_each_recipe_a_fault() -> None:
    assert set(RECIPES) == {fault.name for fault in FAULTS}


VXLAN_TOO = [fault for fault in FAULTS if Encapsulation.VXLAN in fault.encapsulations]


@pytest.mark.parametrize("fault", VXLAN_TOO, ids=lambda fault: fault.name)
def test_operations_touch_the_place_the_catalogue_names(fault: Fault) -> None:
    made = operations(fault, facts())
    expected = {
        Place.SOURCE_POD: {A.pod},
        Place.SOURCE_NODE: {A.node},
        Place.DESTINATION_NODE: {B.node},
        Place.DESTINATION_POD: {B.pod},
        Place.BOTH_NODES: {A.node, B.node},
        Place.WIRE: {"underlay"},
    }[fault.place]
    places = {operation.place for operation in made if operation.undo}
    assert fault.name == "port-closed" or places & expected
    assert all(operation.do and all(operation.do) for operation in made)


def test_a_route_comes_back_as_it_was() -> None:
    (operation,) = operations(get_fault("missing-block-route", FAULTS), facts())
    line = "10.244.2.0/26 via 10.244.2.0 dev vxlan.calico proto 80 onlink"
    assert operation.do == words(f"ip route del {line}")
    assert operation.undo == (words(f"ip route replace {line}"),)


def test_a_device_that_was_down_gets_its_routes_and_neighbours_back() -> None:
    (operation,) = operations(get_fault("host-veth-down", FAULTS), facts())
    assert operation.undo == (
        words("ip link set calia up"),
        words("ip neigh replace 10.244.1.1 dev calia lladdr 02:00:00:00:00:01 nud permanent"),
        words("ip route replace 10.244.1.1 dev calia proto 80 scope link"),
    )


def test_forwarding_comes_back_with_the_exceptions_there_were() -> None:
    before = facts()
    node = before.source_node
    odd = replace(node, sysctls={**node.sysctls, "net/ipv4/conf/ens32/forwarding": "0"})
    changed = replace(before, kernels={**before.kernels, "n1": odd})
    *_, operation = operations(get_fault("forwarding-off", FAULTS), changed)
    assert operation.undo == (
        words("sysctl -w net/ipv4/ip_forward=1"),
        words("sysctl -w net/ipv4/conf/ens32/forwarding=0"),
    )


@pytest.mark.parametrize(
    ("name", "encapsulation", "reason"),
    [
        ("vni-differs", Encapsulation.NONE, "needs encapsulation vxlan"),
        ("tunnel-down", Encapsulation.VXLAN, "needs encapsulation ipip"),
        ("strict-rpf", Encapsulation.NONE, "needs encapsulation ipip or vxlan"),
    ],
)
def test_what_cannot_be_says_why(name: str, encapsulation: Encapsulation, reason: str) -> None:
    with pytest.raises(Impossible, match=reason):
        operations(get_fault(name, FAULTS), facts(encapsulation))


def test_a_missing_program_is_named() -> None:
    without = replace(facts(), programs=frozenset())
    with pytest.raises(Impossible, match="iptables-legacy, which is not installed"):
        operations(get_fault("legacy-firewall-drop", FAULTS), without)


def test_an_unknown_fault_gets_the_nearest_name() -> None:
    with pytest.raises(BadInput) as caught:
        get_fault("proxy-arp-of", FAULTS)
    assert caught.value.fix == "did you mean proxy-arp-off?"


SOURCE_SIDE, DESTINATION_SIDE = "proxy-arp-off", "pod-ignores-ping"


@pytest.mark.parametrize(
    ("name", "wish", "expected"),
    [
        (SOURCE_SIDE, Wish(), (A, B)),
        (DESTINATION_SIDE, Wish(), (A, B)),
        (SOURCE_SIDE, Wish(node="n2"), (B, A)),
        (DESTINATION_SIDE, Wish(node="n1"), (B, A)),
        (SOURCE_SIDE, Wish(pods=("c",)), (C, B)),
        (DESTINATION_SIDE, Wish(pods=("demo/c",)), (B, C)),
        (SOURCE_SIDE, Wish(node="n1", pods=("b",)), (A, B)),
        (DESTINATION_SIDE, Wish(pods=("a", "c")), (A, C)),
    ],
)
def test_the_ends_are_those_asked_for_or_sensible_ones(
    name: str, wish: Wish, expected: tuple[End, End]
) -> None:
    assert choose_ends(get_fault(name, FAULTS), (A, B, C), wish) == expected


def test_ends_that_cannot_be() -> None:
    between = get_fault("next-hop-dead", FAULTS)
    with pytest.raises(Impossible, match="two pods on different nodes"):
        choose_ends(between, (A, C), Wish())
    with pytest.raises(Impossible, match="node n3 has no pod"):
        choose_ends(between, (A, B), Wish(node="n3"))
    with pytest.raises(BadInput, match="pod x does not exist"):
        choose_ends(between, (A, B), Wish(pods=("x",)))
    with pytest.raises(BadInput, match="which is n1, not n2"):
        choose_ends(between, (A, B), Wish(node="n2", pods=("a", "b")))


def test_two_pods_of_one_node_do_where_nothing_crosses() -> None:
    assert choose_ends(get_fault(SOURCE_SIDE, FAULTS), (A, C), Wish()) == (A, C)


def test_what_the_kernel_only_shows_is_not_given_back_to_it() -> None:
    shown = "10.0.0.0/8 via 10.1.1.1 dev eth0 dead linkdown onlink"
    assert clean_route(shown) == "10.0.0.0/8 via 10.1.1.1 dev eth0 onlink"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ip route del 10.0.0.0/26 dev a", "ip route replace blackhole 10.0.0.0/26", True),
        ("ip route del 10.0.0.0/26 dev a", "ip route del 10.0.0.64/26 dev a", False),
        ("sysctl -w net/ipv4/ip_forward=0", "sysctl -w net/ipv4/conf/a/forwarding=0", True),
        ("sysctl -w net/ipv4/conf/a/rp_filter=1", "sysctl -w net/ipv4/conf/b/rp_filter=1", False),
        ("ip link set a down", "ip link del a", True),
        ("ip neigh flush dev a", "ip neigh flush dev a", False),
        ("nft add table inet x", "nft add table inet y", False),
    ],
)
def test_two_faults_touch_the_same_thing_or_not(one: str, other: str, *, same: bool) -> None:
    first, second = (touched(Operation(place="n1", do=words(text))) for text in (one, other))
    assert bool(first & second) is same
