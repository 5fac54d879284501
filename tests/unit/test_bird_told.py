"""What BIRD was told is read back from its file as it was meant."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, ip_address

from hypothesis import given
from hypothesis import strategies as st

from podwire.bgp.told import parse_told
from podwire.desired.bgp import BirdConfig, BirdPeer, PeerType
from podwire.desired.bgptext import render
from podwire.model.bgp import SecretKey
from podwire.model.bgpfilter import BGPFilter
from podwire.model.resource import Metadata

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
SECRETS = st.builds(SecretKey, name=NAMES, key=NAMES)
FILTERS = ("first", "second")
ADDRESSES = st.integers(1, 2**32 - 2).map(IPv4Address)
NUMBERS = st.integers(1, 2**32 - 1)


@st.composite
def peers(draw: st.DrawFn) -> tuple[BirdPeer, ...]:
    found = []
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(PeerType))
        name = draw(NAMES)
        hold = draw(st.integers(3, 600))
        found.append(
            BirdPeer(
                protocol=f"peer{number}",
                type=kind,
                name=name,
                node=name if kind is PeerType.MESH else None,
                address=draw(ADDRESSES),
                port=draw(st.integers(1, 65535)),
                as_number=draw(NUMBERS),
                local_as=draw(NUMBERS),
                source=draw(st.none() | ADDRESSES),
                passive=draw(st.booleans()),
                hold_s=hold,
                keepalive_s=max(1, hold // 3),
                password=draw(st.none() | SECRETS),
                filters=draw(st.sampled_from([(), FILTERS[:1], FILTERS])),
            )
        )
    return tuple(found)


@given(peers(), st.text(st.characters(codec="ascii", exclude_characters='"\n\r\0'), min_size=1))
def test_the_sessions_come_back_as_they_were(wanted: tuple[BirdPeer, ...], password: str) -> None:
    config = BirdConfig(
        node="here",
        router_id=IPv4Address("10.0.0.1"),
        address=IPv4Interface("10.0.0.1/24"),
        as_number=64512,
        filters=tuple(BGPFilter(metadata=Metadata(name=name)) for name in FILTERS),
        peers=wanted,
    )
    passwords = {peer.password: password[:80] for peer in wanted if peer.password}
    told = parse_told(render(config, passwords))
    assert told.peers == wanted
    assert told.passwords == passwords


def test_a_file_by_hand_gives_what_it_has() -> None:
    told = parse_told(
        "protocol bgp tor from session {\n  local port 179 as 1;\n"
        '  neighbor 10.0.0.9 port 179 as 2;\n  password "x";\n  ipv4 { };\n}\n'
        "protocol bgp broken from session {\n}\n"
    )
    [peer] = told.peers
    assert (peer.address, peer.source, peer.type) == (ip_address("10.0.0.9"), None, PeerType.GLOBAL)
    assert peer.password is not None
    assert told.passwords == {peer.password: "x"}
