"""Routes, rules and lookups: what is written is listed again, as equal values."""

from __future__ import annotations

import errno
import json
import subprocess
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers.netlink import requests
from podwire.errors import KernelError, NotThere
from podwire.model.link import Address
from podwire.model.route import (
    PROTOCOL_BIRD,
    SCOPE_LINK,
    NextHop,
    Route,
    RouteKey,
    RouteKind,
    Rule,
    normal,
)

if TYPE_CHECKING:
    from podwire.drivers.netlink.session import Session


def ip(*arguments: str) -> Any:
    """What iproute2 says, parsed: the oracle."""
    done = subprocess.run(["ip", "-j", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout or "[]")


def route(
    destination: str, *hops: NextHop, metric: int = 0, table: int = 254, **rest: Any
) -> Route:
    key = RouteKey(destination=ip_network(destination), metric=metric, table=table)
    return Route(key=key, hops=hops, **rest)


@pytest.fixture
def device(session: Session) -> int:
    """A veth that is up, with the address 192.168.26.1/24; its index."""
    session.run(requests.create_veth("a", peer_name="b", up=True))
    found = session.link("a")
    assert found is not None
    session.run(
        requests.set_link("b", up=True),
        requests.set_link("lo", up=True),
        requests.replace_address(
            Address(device=found.index, interface=ip_interface("192.168.26.1/24"))
        ),
    )
    return found.index


def via(device: int, gateway: str, **rest: Any) -> NextHop:
    return NextHop(device=device, gateway=ip_address(gateway), **rest)


def samples(device: int) -> dict[str, Route]:
    return {
        "pod": route("10.244.38.174/32", NextHop(device=device), scope=SCOPE_LINK),
        "onlink": route("10.244.169.64/26", via(device, "192.168.99.105", onlink=True)),
        "plain": route("10.244.31.64/26", via(device, "192.168.26.106")),
        "default": route("0.0.0.0/0", via(device, "192.168.26.2")),
        "blackhole": route("10.244.38.128/26", kind=RouteKind.BLACKHOLE),
        "other protocol": route("10.9.0.0/16", via(device, "192.168.26.9"), protocol=PROTOCOL_BIRD),
        "metric": route("10.8.0.0/16", via(device, "192.168.26.9"), metric=50),
        "table": route("10.7.0.0/16", kind=RouteKind.UNREACHABLE, table=5000),
        "throw": route("10.6.0.0/16", kind=RouteKind.THROW, table=100),
        "mtu": route("10.5.0.0/16", via(device, "192.168.26.9"), mtu=1400),
        "source": route(
            "10.4.0.0/16", via(device, "192.168.26.9"), source=ip_address("192.168.26.1")
        ),
        "multipath": route(
            "10.3.0.0/16", via(device, "192.168.26.9", weight=3), via(device, "192.168.26.8")
        ),
        "multipath onlink": route(
            "10.2.0.0/16",
            via(device, "10.99.0.9", onlink=True),
            via(device, "10.99.0.8", onlink=True, weight=256),
        ),
        "IPv6 gateway for IPv4": route("10.1.0.0/16", via(device, "fe80::1", onlink=True)),
        "IPv6 device": route("fd00:1::1/128", NextHop(device=device)),
        "IPv6 gateway": route("fd00:2::/122", via(device, "fe80::9")),
        "IPv6 blackhole": route("fd00:3::/122", kind=RouteKind.BLACKHOLE),
        "IPv6 metric": route("fd00:4::/122", via(device, "fe80::9"), metric=7),
        "IPv6 default": route("::/0", via(device, "fe80::1")),
        "IPv6 multipath": route(
            "fd00:5::/122", via(device, "fe80::8"), via(device, "fe80::9", weight=2)
        ),
    }


@pytest.mark.parametrize("title", sorted(samples(1)))
def test_a_route_written_is_listed_in_its_normal_form(
    session: Session, device: int, title: str
) -> None:
    wanted = samples(device)[title]
    session.run(requests.replace_route(wanted))
    assert normal(wanted) in session.routes(table=None)
    assert normal(wanted) in session.routes(table=wanted.key.table)

    session.run(requests.replace_route(wanted))
    assert session.routes(table=None).count(normal(wanted)) == 1

    session.run(requests.delete_route(normal(wanted)))
    assert normal(wanted) not in session.routes(table=None)
    with pytest.raises(NotThere):
        session.run(requests.delete_route(normal(wanted)))


def test_routes_agree_with_iproute2(session: Session, device: int) -> None:
    session.run(*(requests.replace_route(one) for one in samples(device).values()))
    for family in (4, 6):
        ours = [
            (str(one.key.destination), one.key.metric, one.protocol, len(one.hops))
            for one in session.routes(table=None, family=family)
        ]
        theirs = [
            (
                _destination(one["dst"], family),
                one.get("metric", 0),
                _PROTOCOLS[one["protocol"]],
                len(one["nexthops"]) if "nexthops" in one else _hop_count(one, family),
            )
            for one in ip(f"-{family}", "-d", "route", "show", "table", "all")
        ]
        assert sorted(ours) == sorted(theirs)


_PROTOCOLS = {"kernel": 2, "boot": 3, "static": 4, "ra": 9, "bird": 12, "80": 80}


def _destination(text: str, family: int) -> str:
    return str(ip_network(("0.0.0.0/0" if family == 4 else "::/0") if text == "default" else text))


def _hop_count(one: dict[str, Any], family: int) -> int:
    discards = one.get("type") in {"blackhole", "unreachable", "prohibit", "throw"}
    return 0 if discards or "dev" not in one else 1


def test_another_metric_is_another_route(session: Session, device: int) -> None:
    first = route("10.0.0.0/8", via(device, "192.168.26.9"))
    second = route("10.0.0.0/8", via(device, "192.168.26.9"), metric=20)
    session.run(requests.replace_route(first), requests.replace_route(second))
    assert {first, second} <= set(session.routes())


def test_replace_changes_the_route_with_the_same_key(session: Session, device: int) -> None:
    first = route("10.0.0.0/8", via(device, "192.168.26.9"))
    second = route("10.0.0.0/8", kind=RouteKind.BLACKHOLE)
    session.run(requests.replace_route(first), requests.replace_route(second))
    assert second in session.routes()
    assert first not in session.routes()


def test_create_leaves_a_route_of_another_owner_alone(session: Session, device: int) -> None:
    foreign = route("10.0.0.0/8", via(device, "192.168.26.9"), protocol=PROTOCOL_BIRD)
    session.run(requests.replace_route(foreign))
    [error] = session.apply([requests.create_route(route("10.0.0.0/8", kind=RouteKind.BLACKHOLE))])
    assert error is not None
    assert error.errno == errno.EEXIST
    assert foreign in session.routes()


@pytest.mark.parametrize("difference", ["protocol", "gateway", "kind"])
def test_delete_takes_nothing_but_its_own_route(
    session: Session, device: int, difference: str
) -> None:
    foreign = {
        "protocol": route("10.0.0.0/8", via(device, "192.168.26.9"), protocol=PROTOCOL_BIRD),
        "gateway": route("10.0.0.0/8", via(device, "192.168.26.8")),
        "kind": route("10.0.0.0/8", kind=RouteKind.BLACKHOLE),
    }[difference]
    session.run(requests.replace_route(foreign))
    with pytest.raises(NotThere):
        session.run(requests.delete_route(route("10.0.0.0/8", via(device, "192.168.26.9"))))
    assert foreign in session.routes()


def test_a_hop_without_carrier_is_still_the_same_route(session: Session, device: int) -> None:
    wanted = samples(device)["pod"]
    session.run(requests.replace_route(wanted), requests.set_link("b", up=False))
    assert wanted in session.routes()


def test_one_refusal_stops_nothing_and_explains_itself(session: Session, device: int) -> None:
    good = samples(device)["plain"]
    bad = route("10.9.0.0/16", via(device, "1.1.1.1"))
    gone = route("10.8.0.0/16", NextHop(device=99))
    answers = session.apply([requests.replace_route(one) for one in (bad, good, gone)])
    assert good in session.routes()
    assert [type(answer) for answer in answers] == [KernelError, type(None), NotThere]
    assert str(answers[0]).startswith(
        f"replace route 10.9.0.0/16 via 1.1.1.1 dev #{device}: Nexthop"
    )


def test_thousands_of_requests_are_each_answered(session: Session, device: int) -> None:
    hop = via(device, "192.168.26.9")
    wanted = [
        Route(key=RouteKey(destination=IPv4Network((0x0B000000 + 64 * number, 26))), hops=(hop,))
        for number in range(3000)
    ]
    assert session.apply([requests.replace_route(one) for one in wanted]) == [None] * 3000
    assert set(wanted) <= set(session.routes())

    again = session.apply([requests.create_route(one) for one in wanted])
    assert [error and error.errno for error in again] == [errno.EEXIST] * 3000

    mixed = [requests.delete_route(one) for one in (*wanted[:1500], *wanted[:10], *wanted[1500:])]
    answers = session.apply(mixed)
    assert [place for place, error in enumerate(answers) if error] == list(range(1500, 1510))
    assert not set(wanted) & set(session.routes())


def test_a_table_that_was_never_made_is_empty(session: Session) -> None:
    assert session.routes(table=4711) == ()


def test_lookup_tells_the_hop_or_the_entry(session: Session, device: int) -> None:
    wanted = route("10.244.0.0/16", via(device, "192.168.26.9"))
    session.run(requests.replace_route(wanted))
    chosen = session.lookup(ip_address("10.244.1.1"))
    assert chosen.key.destination == ip_network("10.244.1.1/32")
    assert chosen.hops == wanted.hops
    assert session.lookup(ip_address("10.244.1.1"), entry=True) == wanted


def test_lookup_without_a_way_gives_the_kernels_number(session: Session, device: int) -> None:
    with pytest.raises(KernelError) as caught:
        session.lookup(ip_address("8.8.8.8"))
    assert caught.value.errno == errno.ENETUNREACH
    session.run(requests.replace_route(route("8.0.0.0/8", kind=RouteKind.UNREACHABLE)))
    with pytest.raises(KernelError) as caught:
        session.lookup(ip_address("8.8.8.8"))
    assert caught.value.errno == errno.EHOSTUNREACH


RULES = [
    Rule(family=4, priority=100, table=100),
    Rule(family=4, priority=101, table=5000, source=ip_network("10.0.0.0/8"), iif="a"),
    Rule(family=4, priority=102, table=254, destination=ip_network("10.0.0.0/8"), oif="a"),
    Rule(family=4, priority=103, table=7, mark=5),
    Rule(family=4, priority=104, table=7, mark=4, mark_mask=0xF, invert=True),
    Rule(family=4, priority=105, table=254, suppress_prefix_length=0),
    Rule(family=4, priority=106, action="blackhole", tos=16),
    Rule(family=4, priority=107, action="goto", target=32766),
    Rule(family=6, priority=108, table=100, source=ip_network("fd00::/8"), protocol=12),
    Rule(family=6, priority=109, action="prohibit"),
]


@pytest.mark.parametrize("wanted", RULES, ids=lambda rule: str(rule.priority))
def test_a_rule_added_is_listed_and_deleted(session: Session, device: int, wanted: Rule) -> None:
    before = session.rules()
    session.run(requests.add_rule(wanted))
    assert set(session.rules()) - set(before) == {wanted}
    session.run(requests.delete_rule(wanted))
    assert session.rules() == before
    with pytest.raises(NotThere):
        session.run(requests.delete_rule(wanted))


def test_a_nexthop_object_is_told_by_its_number(session: Session, device: int) -> None:
    subprocess.run(
        ["ip", "nexthop", "add", "id", "7", "via", "192.168.26.9", "dev", "a"], check=True
    )
    wanted = route("10.0.0.0/8", nexthop_id=7)
    session.run(requests.replace_route(wanted))
    [found] = [one for one in session.routes() if one.key == wanted.key]
    assert found.nexthop_id == 7
    assert found.hops == (via(device, "192.168.26.9"),)
