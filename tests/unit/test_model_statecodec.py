"""Kernel states survive their JSON form, whatever they hold; what is damaged is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import BadInput
from podwire.model.kernelstate import KernelState, Missing, NamespaceRef, Read
from podwire.model.link import Address, Link, VXLANSettings
from podwire.model.overlay import FDBEntry, Neighbour
from podwire.model.route import NextHop, Route, RouteKey, RouteKind, Rule
from podwire.model.statecodec import SCHEMA, decode_state, encode_state

NUMBERS = st.integers(0, 2**64)
TEXTS = st.text(max_size=12)
MARKS = st.frozensets(TEXTS, max_size=2)
ADDRESSES = st.ip_addresses()
NETWORKS = st.one_of(
    st.builds(
        lambda a, n: ip_network(f"{a}/{n}", strict=False), st.ip_addresses(v=4), st.integers(0, 32)
    ),
    st.builds(
        lambda a, n: ip_network(f"{a}/{n}", strict=False), st.ip_addresses(v=6), st.integers(0, 128)
    ),
)
SWITCH = st.booleans()


def maybe(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | strategy


LINKS = st.builds(
    Link, index=NUMBERS, name=TEXTS, mtu=NUMBERS, up=SWITCH, carrier=SWITCH, kind=maybe(TEXTS),
    mac=maybe(TEXTS), alias=maybe(TEXTS), master=maybe(NUMBERS), peer_index=maybe(NUMBERS),
    peer_netnsid=maybe(st.integers(-1, 9)), loopback=SWITCH, not_modelled=MARKS, operstate=TEXTS,
    vxlan=maybe(st.builds(VXLANSettings, vni=NUMBERS, port=NUMBERS, local=maybe(ADDRESSES),
                          parent=maybe(NUMBERS), learning=SWITCH)),
)  # fmt: skip
HOPS = st.builds(NextHop, device=maybe(NUMBERS), gateway=maybe(ADDRESSES), onlink=SWITCH,
                 weight=NUMBERS, dead=SWITCH)  # fmt: skip
ROUTES = st.builds(
    Route,
    key=st.builds(RouteKey, destination=NETWORKS, table=NUMBERS, metric=NUMBERS, tos=NUMBERS),
    kind=st.sampled_from(RouteKind), protocol=NUMBERS, scope=NUMBERS,
    hops=st.lists(HOPS, max_size=2).map(tuple), source=maybe(ADDRESSES), mtu=maybe(NUMBERS),
    nexthop_id=maybe(NUMBERS), not_modelled=MARKS,
)  # fmt: skip
RULES = st.builds(
    Rule, family=st.sampled_from([4, 6]), priority=NUMBERS, action=TEXTS, table=NUMBERS,
    source=maybe(NETWORKS), destination=maybe(NETWORKS), iif=maybe(TEXTS), mark=maybe(NUMBERS),
    invert=SWITCH, suppress_prefix_length=maybe(NUMBERS), protocol=NUMBERS, not_modelled=MARKS,
)  # fmt: skip
NEIGHBOURS = st.builds(Neighbour, device=NUMBERS, address=ADDRESSES, mac=maybe(TEXTS),
                       state=NUMBERS, proxy=SWITCH)  # fmt: skip
FDB = st.builds(FDBEntry, device=NUMBERS, mac=TEXTS, destination=maybe(ADDRESSES), state=NUMBERS,
                own=SWITCH, master=maybe(NUMBERS), vni=maybe(NUMBERS), port=maybe(NUMBERS),
                )  # fmt: skip
JSON = st.recursive(
    st.none() | SWITCH | st.integers(-(2**63), 2**64) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=6,
)


def section(content: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.builds(Missing, TEXTS) | st.builds(Read, content, NUMBERS, NUMBERS)


def many(item: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return section(st.lists(item, max_size=2).map(tuple))


STATES = st.builds(
    KernelState,
    namespace=st.builds(NamespaceRef, inode=NUMBERS, node=maybe(TEXTS), name=maybe(TEXTS),
                        path=maybe(TEXTS), root=SWITCH, pod=maybe(TEXTS)),
    links=many(LINKS), routes=many(ROUTES), rules=many(RULES), neighbours=many(NEIGHBOURS),
    addresses=many(st.builds(Address, device=NUMBERS, scope=NUMBERS, tentative=SWITCH,
                             interface=ADDRESSES.map(lambda each: ip_interface(f"{each}/9")))),
    fdb=many(FDB), sysctls=section(st.dictionaries(TEXTS, TEXTS, max_size=2)),
    netns_ids=section(st.dictionaries(st.integers(-1, 99), NUMBERS, max_size=2)),
    nft=many(st.dictionaries(TEXTS, JSON, max_size=2)), iptables_legacy=section(TEXTS),
    sockets=many(TEXTS), conntrack=many(TEXTS),
)  # fmt: skip


@given(STATES)
def test_what_was_written_is_read(state: KernelState) -> None:
    read = decode_state(encode_state(state))
    assert read == state
    for name in ("links", "addresses", "routes"):  # fields that no comparison looks at
        assert asdict(getattr(read, name)) == asdict(getattr(state, name))


EMPTY = KernelState(namespace=NamespaceRef(inode=7))


def test_a_section_that_is_not_there_was_not_collected() -> None:
    read = decode_state(b'{"schema": "podwire.kernelstate/v1", "namespace": {"inode": 7}}')
    assert read == EMPTY
    assert isinstance(read.links, Missing)


def test_missing_never_becomes_empty() -> None:
    state = replace(EMPTY, links=Missing("the node did not answer"), routes=Read(()))
    read = decode_state(encode_state(state))
    assert read.links == Missing("the node did not answer")
    assert read.routes == Read(())


def test_what_a_later_version_adds_is_ignored() -> None:
    link = Link(index=1, name="lo", mtu=65536, up=True, carrier=True)
    document = json.loads(encode_state(replace(EMPTY, links=Read((link,)))))
    document["weather"] = {"value": 1}
    document["links"]["mood"] = "fine"
    document["links"]["value"][0]["colour"] = "red"
    document["namespace"]["smell"] = None
    assert decode_state(json.dumps(document).encode()).links == Read((link,))


def test_every_section_has_a_form() -> None:
    document = json.loads(encode_state(EMPTY))
    assert document == {"schema": SCHEMA, "namespace": {"inode": 7}}
    everything = dict.fromkeys({each.name for each in fields(KernelState)} - {"namespace"}, None)
    assert (
        decode_state(json.dumps({**document, **{name: {} for name in everything}}).encode())
        == EMPTY
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "damaged"),
        (b'{"schema": "podwire.kernelstate/v1"', "damaged"),
        (b'{"schema": "podwire.kernelstate/v1"}', "namespace"),
        (b'{"schema": "podwire.kernelstate/v2", "namespace": {"inode": 1}}', "/v2"),
        (b'{"schema": "podwire.kernelstate/v1", "namespace": {"inode": "x"}}', "namespace.inode"),
        (b'{"namespace": {"inode": 1}}', "schema"),
    ],
)
def test_what_is_damaged_is_named(text: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=r"states/7\.json") as caught:
        decode_state(text, "states/7.json")
    assert says in caught.value.message


def test_an_address_that_is_none_is_refused() -> None:
    text = encode_state(
        replace(EMPTY, neighbours=Read((Neighbour(device=1, address=ip_address("9.9.9.9")),)))
    )
    with pytest.raises(BadInput, match=r"9\.9\.9\.999"):
        decode_state(text.replace(b"9.9.9.9", b"9.9.9.999"))


def test_endless_nesting_is_refused() -> None:
    text = b'{"schema":"podwire.kernelstate/v1","namespace":{"inode":1},"nft":{"value":[{"a":'
    with pytest.raises(BadInput):
        decode_state(text + b"[" * 100_000)
