"""Told: the sessions in BIRD's configuration file, read back from what `desired.bgptext` writes.

What BIRD was told last is what its sessions have to be compared with; and it is there when agent
and datastore are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING

from podwire.desired.bgp import BirdPeer, PeerType
from podwire.model.bgp import DEFAULTS, SecretKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BEGIN = re.compile(r"protocol bgp (\S+) from session \{")
_DESCRIPTION = re.compile(r'description "(node-to-node mesh|node specific|global): (.*)";')
_LOCAL = re.compile(r"local (?:([0-9a-fA-F.:]+) )?port \d+ as (\d+);")
_NEIGHBOUR = re.compile(r"neighbor ([0-9a-fA-F.:]+) port (\d+) as (\d+);")
_TIMERS = re.compile(r"hold time (\d+); keepalive time (\d+);")
_PASSWORD = re.compile(r'password "([^"\n]*)";(?: # secret (\S+)/(\S+))?')
_FILTERS = re.compile(r"# BGPFilter (.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The sessions BIRD was told of, and their passwords."""

    peers: tuple[BirdPeer, ...]
    passwords: Mapping[SecretKey, str]


def parse_told(text: str) -> Told:
    """The sessions of a configuration file; what else is in it is passed over."""
    peers: list[BirdPeer] = []
    passwords: dict[SecretKey, str] = {}
    for name, block in _blocks(text):
        peer, password = _peer(name, block)
        if peer is None:
            continue
        peers.append(peer)
        if peer.password is not None and password is not None:
            passwords[peer.password] = password
    return Told(peers=tuple(peers), passwords=MappingProxyType(passwords))


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Name and body of every session; a body ends with a brace at the beginning of a line."""
    for found in _BEGIN.finditer(text):
        yield found[1], text[found.end() :].partition("\n}")[0]


def _peer(name: str, block: str) -> tuple[BirdPeer | None, str | None]:
    neighbour, local = _NEIGHBOUR.search(block), _LOCAL.search(block)
    if neighbour is None or local is None:
        return None, None
    described = _DESCRIPTION.search(block)
    timers = _TIMERS.search(block)
    password = _PASSWORD.search(block)
    filters = _FILTERS.search(block)
    kind = PeerType.GLOBAL if described is None else PeerType(described[1])
    title = name if described is None else described[2]
    peer = BirdPeer(
        protocol=name,
        type=kind,
        name=title,
        node=title if kind is PeerType.MESH else None,
        address=ip_address(neighbour[1]),
        port=int(neighbour[2]),
        as_number=int(neighbour[3]),
        local_as=int(local[2]),
        source=None if local[1] is None else ip_address(local[1]),
        passive="passive on;" in block,
        hold_s=int(timers[1]) if timers else DEFAULTS.hold_s,
        keepalive_s=int(timers[2]) if timers else DEFAULTS.keepalive_s,
        password=None if password is None else _secret(name, password),
        filters=tuple(filters[1].split(", ")) if filters else (),
    )
    return peer, None if password is None else password[1]


def _secret(name: str, password: re.Match[str]) -> SecretKey:
    if password[2] is None:
        return SecretKey(name=name, key="password")
    return SecretKey(name=password[2], key=password[3])
