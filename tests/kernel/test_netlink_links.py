"""Links, addresses, neighbours and forwarding entries, compared with iproute2 and pyroute2."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers import namespaces, sysctl
from podwire.drivers.netlink import requests
from podwire.errors import (
    BadInput,
    InterfaceExists,
    KernelError,
    LinkNotReady,
    NotThere,
    Unsupported,
)
from podwire.model.link import HOST_MAC, Address, Link, VXLANSettings
from podwire.model.overlay import FDBEntry, Neighbour
from podwire.model.route import NextHop, Route, RouteKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.drivers.netlink.session import Session

ALIAS = "podwire 0a1b2c demo/web-0 eth0"


def ip(*arguments: str) -> Any:
    """What iproute2 says, parsed: the oracle."""
    done = subprocess.run(["ip", "-j", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout or "[]")


def told_links() -> dict[int, Any]:
    return {one["ifindex"]: one for one in ip("-d", "link", "show")}


def must_find(session: Session, name: str) -> Link:
    found = session.link(name)
    assert found is not None, name
    return found


def test_a_veth_is_complete_after_one_request(
    session: Session,
    make_namespace: Callable[[str], int],
    session_in: Callable[[int], Session],
) -> None:
    pod = make_namespace("pod")
    session.run(
        requests.create_veth(
            "cali12",
            peer_name="eth0",
            peer_namespace=pod,
            mtu=1450,
            mac=HOST_MAC,
            peer_mac="02:00:00:00:00:07",
            alias=ALIAS,
            up=True,
        )
    )
    host, inside = must_find(session, "cali12"), must_find(session_in(pod), "eth0")
    assert (host.mtu, host.mac, host.alias, host.up, host.kind) == (
        1450, HOST_MAC, ALIAS, True, "veth",
    )  # fmt: skip
    assert (inside.mtu, inside.mac, inside.up, inside.carrier) == (
        1450, "02:00:00:00:00:07", False, False,
    )  # fmt: skip
    assert (host.peer_index, inside.peer_index) == (inside.index, host.index)
    assert session.namespace_ids()[host.peer_netnsid or 0] == namespaces.inode_of(pod)
    [told] = ip("-d", "link", "show", "cali12")
    assert told["ifalias"] == ALIAS
    assert told["num_tx_queues"] == 1


def test_a_veth_that_exists_is_left_as_it_is(session: Session) -> None:
    session.run(requests.create_veth("cali12", peer_name="b", alias="mine"))
    before = session.links()
    with pytest.raises(InterfaceExists, match="cali12"):
        session.run(requests.create_veth("cali12", peer_name="c", alias="other", up=True))
    assert session.links() == before


def test_links_agree_with_iproute2_and_pyroute2(session: Session) -> None:
    pyroute2 = pytest.importorskip("pyroute2")
    session.run(
        requests.create_veth("a", peer_name="b", mtu=1400, alias=ALIAS, up=True),
        requests.create_bridge("br0", mac="02:00:00:00:00:01", up=True),
        requests.create_vxlan("vx0", VXLANSettings(vni=4096, port=4789, learning=False)),
    )
    session.run(requests.set_link("a", master=must_find(session, "br0").index))
    ours, told = session.links(), told_links()
    # The kernel changes carriers from a work queue: compare one and the same moment.
    while session.links() != ours:
        ours, told = session.links(), told_links()
    assert ours.keys() == told.keys()
    for index, link in ours.items():
        one = told[index]
        assert link.name == one["ifname"]
        assert link.mtu == one["mtu"]
        assert link.up == ("UP" in one["flags"])
        assert link.carrier == ("LOWER_UP" in one["flags"])
        assert link.kind == one.get("linkinfo", {}).get("info_kind")
        assert link.alias == one.get("ifalias")
        assert link.mac == (one["address"] if one["link_type"] == "ether" else None)
        assert (None if link.master is None else ours[link.master].name) == one.get("master")
        if link.kind == "veth":
            assert ours[link.peer_index or 0].name == one["link"]
    with pyroute2.IPRoute() as oracle:
        theirs = {one["index"]: one.get_attr("IFLA_IFNAME") for one in oracle.get_links()}
    assert {index: link.name for index, link in ours.items()} == theirs


def test_the_state_of_a_link_follows_its_peer(session: Session) -> None:
    session.run(requests.create_veth("a", peer_name="b", up=True))
    # The kernel changes these states a moment later, from a work queue.
    while must_find(session, "a").operstate != "lowerlayerdown":
        pass
    session.run(requests.set_link("b", up=True))
    while must_find(session, "a").operstate != "up":
        pass
    assert ip("link", "show", "a")[0]["operstate"] == "UP"


def test_a_vxlan_device_keeps_its_settings(session: Session) -> None:
    session.run(requests.create_veth("a", peer_name="b"))
    parent = must_find(session, "a").index
    wanted = VXLANSettings(
        vni=4096, port=4789, local=ip_address("192.168.26.1"), parent=parent, learning=False
    )
    session.run(
        requests.create_vxlan("vxlan.calico", wanted, mac="66:b3:68:28:39:8e", mtu=1450, up=True)
    )
    found = must_find(session, "vxlan.calico")
    assert (found.vxlan, found.mac, found.mtu, found.up) == (
        wanted,
        "66:b3:68:28:39:8e",
        1450,
        True,
    )


def test_a_route_leads_through_the_ipip_device(session: Session) -> None:
    try:
        session.run(requests.create_ipip("tunl0"))
    except InterfaceExists:  # the module was loaded, and made it
        pass
    except Unsupported:
        pytest.skip("this kernel has no ipip")
    found = must_find(session, "tunl0")
    assert (found.kind, found.mac, found.peer_index) == ("ipip", None, None)
    address = Address(device=found.index, interface=ip_interface("10.244.38.128/32"))
    hop = NextHop(device=found.index, gateway=ip_address("192.168.26.105"), onlink=True)
    route = Route(key=RouteKey(destination=ip_interface("10.244.169.64/26").network), hops=(hop,))
    session.run(
        requests.set_link("tunl0", up=True, mtu=1480),
        requests.replace_address(address),
        requests.replace_route(route),
    )
    assert must_find(session, "tunl0").mtu == 1480
    assert address in session.addresses()
    assert route in session.routes()


def test_a_link_can_be_changed_moved_and_renamed(
    session: Session, make_namespace: Callable[[str], int], session_in: Callable[[int], Session]
) -> None:
    pod = make_namespace("pod")
    session.run(
        requests.create_veth("a", peer_name="b"),
        requests.set_link("a", up=True, mtu=1300, mac="02:00:00:00:00:09", alias="x"),
    )
    changed = must_find(session, "a")
    assert (changed.mtu, changed.mac, changed.alias, changed.up) == (
        1300, "02:00:00:00:00:09", "x", True,
    )  # fmt: skip
    session.run(
        requests.set_link("a", alias="", up=False),
        requests.set_link(changed.index, new_name="c"),
        requests.set_link(must_find(session, "b").index, namespace=pod, new_name="eth0"),
    )
    assert must_find(session, "c").alias is None
    assert not must_find(session, "c").up
    assert session.link("b") is None
    assert must_find(session_in(pod), "eth0").kind == "veth"
    session.run(requests.delete_link("c"))
    assert session_in(pod).link("eth0") is None


def test_a_link_is_renamed_by_index_only() -> None:
    with pytest.raises(ValueError, match="index"):
        requests.set_link("a", new_name="b")


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 16, "a b", "a\0b"])
def test_a_name_no_interface_can_have_is_refused_before_it_is_sent(name: str) -> None:
    with pytest.raises(BadInput):
        requests.create_bridge(name)


def test_the_bridge_is_left_with_master_0(session: Session) -> None:
    session.run(requests.create_veth("a", peer_name="b"), requests.create_bridge("br0"))
    bridge = must_find(session, "br0").index
    session.run(requests.set_link("a", master=bridge))
    assert must_find(session, "a").master == bridge
    session.run(requests.set_link("a", master=0))
    assert must_find(session, "a").master is None


@pytest.mark.parametrize("text", ["10.244.1.7/32", "192.168.26.1/24", "fd00::1/64"])
def test_an_address_is_listed_and_deleted(session: Session, text: str) -> None:
    session.run(requests.create_veth("a", peer_name="b", up=True))
    wanted = Address(device=must_find(session, "a").index, interface=ip_interface(text))
    session.run(requests.replace_address(wanted), requests.replace_address(wanted))
    assert session.addresses().count(wanted) == 1
    told = [
        f"{address['local']}/{address['prefixlen']}"
        for address in ip("address", "show", "dev", "a")[0]["addr_info"]
    ]
    assert text in told
    session.run(requests.delete_address(wanted))
    assert wanted not in session.addresses()
    with pytest.raises(NotThere):
        session.run(requests.delete_address(wanted))


def test_an_address_without_duplicate_detection_is_usable_at_once(session: Session) -> None:
    session.run(requests.create_veth("a", peer_name="b", up=True), requests.set_link("b", up=True))
    wanted = Address(device=must_find(session, "a").index, interface=ip_interface("fd00::1/64"))
    session.run(requests.replace_address(wanted, detect_duplicates=False))
    [found] = [one for one in session.addresses() if one == wanted]
    assert not found.tentative


@pytest.mark.parametrize(
    "wanted",
    [
        Neighbour(device=0, address=ip_address("10.244.1.7"), mac="02:00:00:00:00:07"),
        Neighbour(device=0, address=ip_address("fd00::7"), mac="02:00:00:00:00:07"),
        Neighbour(device=0, address=ip_address("169.254.1.1"), proxy=True),
        Neighbour(device=0, address=ip_address("fe80::7"), proxy=True),
    ],
    ids=lambda one: f"{'proxy ' if one.proxy else ''}{one.address}",
)
def test_a_neighbour_is_listed_and_deleted(session: Session, wanted: Neighbour) -> None:
    session.run(requests.create_veth("a", peer_name="b", up=True), requests.set_link("b", up=True))
    wanted = replace(wanted, device=must_find(session, "a").index)
    session.run(requests.replace_neighbour(wanted), requests.replace_neighbour(wanted))
    assert session.neighbours().count(wanted) == 1
    if not wanted.proxy:
        [told] = ip(f"-{wanted.address.version}", "neigh", "show", str(wanted.address), "dev", "a")
        assert (told["lladdr"], told["state"]) == (wanted.mac, ["PERMANENT"])
        moved = replace(wanted, mac="02:00:00:00:00:08")
        session.run(requests.replace_neighbour(moved))
        assert moved in session.neighbours()
    session.run(requests.delete_neighbour(wanted))
    assert wanted.address not in {one.address for one in session.neighbours()}
    with pytest.raises(NotThere):
        session.run(requests.delete_neighbour(wanted))


def test_a_vxlan_forwarding_entry_follows_its_node(session: Session) -> None:
    session.run(
        requests.create_vxlan("vx0", VXLANSettings(vni=4096, port=4789, learning=False), up=True)
    )
    device = must_find(session, "vx0").index
    wanted = FDBEntry(
        device=device, mac="66:00:00:00:00:02", destination=ip_address("192.168.26.2"), own=True
    )
    moved = replace(wanted, destination=ip_address("192.168.26.3"))
    session.run(requests.replace_fdb(wanted), requests.replace_fdb(wanted))
    assert session.fdb().count(wanted) == 1
    session.run(requests.replace_fdb(moved))
    assert moved in session.fdb()
    assert wanted not in session.fdb()
    told = subprocess.run(
        ["bridge", "fdb", "show", "dev", "vx0"], check=True, capture_output=True, text=True
    ).stdout
    assert "66:00:00:00:00:02 dst 192.168.26.3 self permanent" in told
    session.run(requests.delete_fdb(moved))
    assert moved not in session.fdb()
    with pytest.raises(NotThere):
        session.run(requests.delete_fdb(moved))


def test_a_flooding_entry_keeps_all_its_destinations(session: Session) -> None:
    session.run(requests.create_vxlan("vx0", VXLANSettings(vni=1, port=4789), up=True))
    device = must_find(session, "vx0").index
    wanted = {
        FDBEntry(
            device=device,
            mac="00:00:00:00:00:00",
            destination=ip_address(f"192.168.26.{last}"),
            own=True,
        )
        for last in (2, 3)
    }
    session.run(*(requests.replace_fdb(one) for one in wanted))
    assert wanted <= set(session.fdb())


def test_a_bridge_port_entry_names_its_bridge(session: Session) -> None:
    session.run(
        requests.create_veth("a", peer_name="b", up=True), requests.create_bridge("br0", up=True)
    )
    bridge = must_find(session, "br0").index
    session.run(requests.set_link("a", master=bridge))
    wanted = FDBEntry(device=must_find(session, "a").index, mac="02:00:00:00:00:09", master=bridge)
    session.run(requests.replace_fdb(wanted))
    assert wanted in session.fdb()
    session.run(requests.delete_fdb(wanted))
    assert wanted not in session.fdb()


def test_what_is_absent_is_not_there(session: Session) -> None:
    assert session.link("nope") is None
    assert session.link(4711) is None
    with pytest.raises(NotThere) as caught:
        session.run(requests.delete_link("nope"))
    assert caught.value.subject == "delete link nope"
    assert caught.value.errno > 0


def test_a_route_through_a_device_that_is_down_can_be_tried_later(session: Session) -> None:
    session.run(requests.create_veth("a", peer_name="b"))
    index = must_find(session, "a").index
    hop = NextHop(device=index, gateway=ip_address("10.0.0.1"), onlink=True)
    key = RouteKey(destination=ip_interface("10.1.0.0/16").network)
    with pytest.raises(LinkNotReady):
        session.run(requests.replace_route(Route(key=key, hops=(hop,))))


def test_without_the_right_the_error_says_so() -> None:
    script = """
from podwire.drivers.netlink import requests
from podwire.drivers.netlink.session import Session
from podwire.errors import Forbidden
with Session.open() as session:
    assert session.links()
    try:
        session.run(requests.create_bridge("br0"))
    except Forbidden as error:
        print(error)
"""
    done = subprocess.run(
        ["unshare", "--user", sys.executable, "-c", script],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "create bridge br0: Operation not permitted" in done.stdout
    assert "run as root" in done.stdout


def test_apply_keeps_the_kernels_number_for_every_refusal(session: Session) -> None:
    [error] = session.apply([requests.create_device("x", "nosuchkind")])
    assert isinstance(error, KernelError)
    with pytest.raises(Unsupported, match="nosuchkind"):
        session.run(requests.create_device("x", "nosuchkind"))


def test_sysctls_belong_to_the_namespace_of_the_thread(
    session: Session, make_namespace: Callable[[str], int]
) -> None:
    pod = make_namespace("pod")
    session.run(requests.create_veth("cali.12", peer_name="eth0", peer_namespace=pod))
    name = "net/ipv4/conf/cali.12/proxy_arp"
    assert sysctl.read(name) == "0"
    assert sysctl.write(name, 1)
    assert not sysctl.write(name, "1")
    assert sysctl.read(name) == "1"
    assert namespaces.call_in(pod, sysctl.read, name) is None
    assert namespaces.call_in(pod, sysctl.write, "net/ipv4/conf/eth0/rp_filter", 2)
    sysctl.put(name, "0")
    assert sysctl.read(name) == "0"
    assert sysctl.read("net/ipv4/conf/nope/proxy_arp") is None
    with pytest.raises(NotThere):
        sysctl.put("net/ipv4/conf/nope/proxy_arp", "1")
    with pytest.raises(NotThere, match="nope"):
        sysctl.write("net/ipv4/conf/nope/proxy_arp", 1)
    with pytest.raises(KernelError, match="nonsense"):
        sysctl.write("net/ipv4/ip_forward", "nonsense")
