"""What is asked for one attachment, in the network configuration and by those who call."""

from __future__ import annotations

import json
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.model.cni import NO_DEMAND, CallRefused, Demand
from podwire.model.cnidemand import POD_ANNOTATIONS, parse_demand

TITLE = "pod demo/web-0"


def demand(
    document: dict[str, Any] | None = None,
    arguments: dict[str, str] | None = None,
    runtime: dict[str, Any] | None = None,
    **annotations: Any,
) -> Demand:
    """`annotations`: by Calico's name without prefix; what is no text becomes JSON."""
    told = {
        f"cni.projectcalico.org/{name}": value if isinstance(value, str) else json.dumps(value)
        for name, value in annotations.items()
    }
    passed = {POD_ANNOTATIONS: {"other/annotation": "[", **told}, **(runtime or {})}
    return parse_demand({"runtimeConfig": passed, **(document or {})}, arguments or {}, TITLE)


def refused(*places: Any, **annotations: Any) -> CallRefused:
    with pytest.raises(CallRefused) as caught:
        demand(*places, **annotations)
    assert caught.value.fix
    assert len(caught.value.message) < 900
    return caught.value


def test_nothing_is_asked_for() -> None:
    assert parse_demand({}, {}, TITLE) == NO_DEMAND
    assert demand() == NO_DEMAND
    names = ("ipv4pools", "ipv6pools", "allowedSourcePrefixes", "floatingIPs")
    empty: dict[str, Any] = {name: [] for name in names}
    assert demand({"ipam": None, "mtu": 0, "args": {}}, **empty) == NO_DEMAND


def test_the_annotations_of_a_pod() -> None:
    found = demand(
        ipAddrs=["10.244.7.9"],
        ipv4pools=["front", "10.244.0.0/16"],
        ipFamilies=["IPv4"],
        hwAddr="02:AB:00:00:00:01",
        allowedSourcePrefixes=["192.0.2.7/24", "198.51.100.7"],
    )
    assert found == Demand(
        address=ip_address("10.244.7.9"),
        pools=("front", "10.244.0.0/16"),
        mac="02:ab:00:00:00:01",
        sources=(ip_network("192.0.2.0/24"), ip_network("198.51.100.7/32")),
    )


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("ipAddrs", "10.244.7.9", "not JSON"),
        ("ipAddrs", '["10.244.7.9"', "not JSON"),
        ("ipAddrs", "[" * 9000, "not JSON"),
        ("ipAddrs", "{}", "no list"),
        ("ipAddrs", [7], "no list"),
        ("ipAddrs", [""], "no list"),
        ("ipAddrs", ["10.244.7.900"], "not an IP address"),
        ("ipAddrs", ["x" * 5000], "xxxx"),
        ("ipAddrs", ["10.244.7.9", "10.244.7.10"], "2 addresses"),
        ("ipAddrs", ["10.244.7.9", "fd00::9"], "fd00::9"),
        ("ipv4pools", "front", "not JSON"),
        ("ipv6pools", ["fd00::/64"], "names pools"),
        ("ipFamilies", ["IPv6"], "IPv6"),
        ("ipFamilies", ["IPv4", "IPv6"], "IPv6"),
        ("ipFamilies", ["ipv4"], "ipv4"),
        ("ipFamilies", [], "[]"),
        ("hwAddr", "02:00:00:00:00", "not a MAC"),
        ("hwAddr", "02:00:00-00:00:01", "not a MAC"),
        ("hwAddr", "03:00:00:00:00:01", "no single device"),
        ("hwAddr", "00:00:00:00:00:00", "no single device"),
        ("hwAddr", "ee:ee:ee:ee:ee:ee", "gateway"),
        ("allowedSourcePrefixes", ["all"], "all"),
        ("ipAddrsNoIpam", ["10.9.9.9"], "IPAM"),
        ("ipAddrsNoIpam", "nonsense", "IPAM"),
        ("floatingIPs", ["203.0.113.9"], "floating"),
    ],
)
def test_an_annotation_that_cannot_be_honoured_is_named(name: str, value: Any, word: str) -> None:
    error = refused(**{name: value})
    assert error.code == 7
    assert error.message.startswith(f"{TITLE}: annotation cni.projectcalico.org/{name} ")
    assert word in error.message


def test_annotations_that_are_no_texts() -> None:
    cases: tuple[Any, ...] = ([], "x", {"a": 1})
    for told in cases:
        with pytest.raises(CallRefused) as caught:
            parse_demand({"runtimeConfig": {POD_ANNOTATIONS: told}}, {}, TITLE)
        assert (caught.value.code, POD_ANNOTATIONS in caught.value.message) == (7, True)


def test_the_network_configuration() -> None:
    found = demand(
        {
            "mtu": 1400,
            "ipam": {"type": "podwire", "assign_ipv4": "true", "ipv4_pools": ["front"]},
            "container_settings": {"allow_ip_forwarding": True},
            "args": {"cni": {"ips": ["10.244.7.9"], "labels": []}},
        }
    )
    assert found == Demand(
        address=ip_address("10.244.7.9"), pools=("front",), mtu=1400, forwarding=True
    )


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({"mtu": -1}, "mtu"),
        ({"mtu": 67}, "mtu"),
        ({"mtu": 1 << 20}, "mtu"),
        ({"mtu": True}, "mtu"),
        ({"mtu": "1400"}, "mtu"),
        ({"ipam": {"type": "host-local"}}, "host-local"),
        ({"ipam": "dhcp"}, "dhcp"),
        ({"ipam": {"subnet": "10.0.0.0/8"}}, "subnet"),
        ({"ipam": {"assign_ipv4": "false"}}, "assign_ipv4"),
        ({"ipam": {"assign_ipv6": "true"}}, "IPv6"),
        ({"ipam": {"ipv6_pools": ["fd00::/64"]}}, "IPv6"),
        ({"ipam": {"ipv4_pools": "front"}}, "ipv4_pools"),
        ({"container_settings": {"allow_ip_forwarding": "yes"}}, "allow_ip_forwarding"),
        ({"container_settings": 1}, "container_settings"),
        ({"args": {"cni": []}}, "cni"),
        ({"args": {"cni": {"ips": "10.0.0.1"}}}, "args.cni.ips"),
        ({"runtimeConfig": []}, "runtimeConfig"),
        ({"runtimeConfig": {"ips": ["x"]}}, "runtimeConfig.ips"),
        ({"runtimeConfig": {"mac": 7}}, "runtimeConfig.mac"),
        ({"runtimeConfig": {"ipRanges": [[{"subnet": "10.0.0.0/8"}]]}}, "ipRanges"),
    ],
    ids=str,
)
def test_what_the_configuration_cannot_ask_for(document: dict[str, Any], word: str) -> None:
    error = refused(document)
    assert (error.code, word in error.message) == (7, True)


def test_capability_arguments_and_cni_args() -> None:
    assert demand(runtime={"ips": ["10.1.0.9/16"], "mac": "0200.0000.0001"}) == Demand(
        address=ip_address("10.1.0.9"), mac="02:00:00:00:00:01"
    )
    assert demand(arguments={"IP": "10.1.0.9", "MAC": "02-00-00-00-00-01"}) == Demand(
        address=ip_address("10.1.0.9"), mac="02:00:00:00:00:01"
    )
    assert refused(None, {"IP": "10.1.0.900"}).code == 4
    assert refused(None, {"MAC": "x"}).code == 4


def test_a_pods_own_pools_come_before_the_networks() -> None:
    assert demand({"ipam": {"ipv4_pools": ["a"]}}, ipv4pools=["b"]).pools == ("b",)
    assert demand({"ipam": {"ipv4_pools": ["a"]}}, ipv4pools=[]).pools == ("a",)


def test_two_places_that_disagree_are_both_named() -> None:
    same = demand(None, {"IP": "10.1.0.9"}, {"ips": ["10.1.0.9/24"]}, ipAddrs=["10.1.0.9"])
    assert same.address == ip_address("10.1.0.9")
    error = refused(None, {"IP": "10.1.0.8"}, ipAddrs=["10.1.0.9"])
    assert "CNI_ARGS IP" in error.message
    assert "ipAddrs" in error.message
    error = refused(None, {"MAC": "02:00:00:00:00:01"}, hwAddr="02:00:00:00:00:02")
    assert "CNI_ARGS MAC" in error.message


@given(
    st.sampled_from(
        ["ipAddrs", "ipv4pools", "ipv6pools", "ipFamilies", "hwAddr", "allowedSourcePrefixes"]
    ),
    st.text(max_size=40)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ).map(json.dumps),
)
def test_any_annotation_gives_a_demand_or_a_refusal_that_names_it(name: str, text: str) -> None:
    asked: dict[str, Any] = {name: text}
    with suppress(CallRefused):
        demand(**asked)
        return
    assert name in refused(**asked).message
