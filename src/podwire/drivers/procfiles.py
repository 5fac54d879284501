"""Files of /proc that say how the calling thread's network namespace is set.

Sysctls are named as KernelState names them: dotted, without `net.`, the folder of an interface
kept whole (`ipv4.conf/cali12/proxy_arp`).
"""

from __future__ import annotations

import os
import socket
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING

from podwire.drivers.rulesets import dump

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WHOLE = ("ip_forward", "ip_default_ttl", "icmp_echo_ignore_all", "ip_forward_use_pmtu")
PER_LINK = (
    "forwarding",
    "rp_filter",
    "proxy_arp",
    "accept_local",
    "arp_ignore",
    "ignore_routes_with_linkdown",
    "route_localnet",
    "src_valid_mark",
)
"""Below conf/: what decides about a packet, or about an answer to ARP."""
PATTERNS = (
    *(f"ipv4/{name}" for name in WHOLE),
    *(f"ipv4/conf/*/{name}" for name in PER_LINK),
    "ipv4/neigh/*/proxy_delay",
    "ipv6/conf/*/forwarding",
    "ipv6/conf/*/proxy_ndp",
    "ipv6/conf/*/ignore_routes_with_linkdown",
    "ipv6/conf/all/hop_limit",
    "ipv6/icmp/echo_ignore_all",
    "bridge/bridge-nf-call-iptables",
    "bridge/bridge-nf-call-ip6tables",
)
"""Files below /proc/sys/net that are read; `*` stands for a link, `all` and `default`."""
_LISTEN, _BOUND = "0A", "07"
_SOCK_DIAG, _BY_FAMILY = 4, 20
_QUESTION = Struct("=BBBBI")
"""inet_diag_req_v2 without the socket's identity: family, protocol, extensions, states."""


def read_sysctls(links: Iterable[str]) -> dict[str, str]:
    """The settings that decide about packets; one that this kernel lacks is left out."""
    found: dict[str, str] = {}
    folders = ("all", "default", *links)
    for pattern, names in _by_folder().items():
        for each in folders if "*" in pattern else ("",):
            folder = pattern.replace("*", each)
            found.update(_read_folder(f"/proc/sys/net/{folder}", f"{folder}/", names))
    return found


@cache
def _by_folder() -> dict[str, tuple[str, ...]]:
    """The patterns' last words by what stands before them."""
    found: dict[str, tuple[str, ...]] = {}
    for pattern in PATTERNS:
        folder, _, name = pattern.rpartition("/")
        found[folder] = (*found.get(folder, ()), name)
    return found


def _read_folder(folder: str, title: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    # A node has a dozen files for each of its pods. Opened one by one from their folder they cost
    # a quarter of what Path.read_text takes, most of which goes into finding the way.
    title = title.replace("/", ".", 1)
    try:
        place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for name in names:
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=place)
            except OSError:
                continue
            try:
                yield f"{title}{name}", os.read(descriptor, 64).decode().strip()
            except OSError:  # the device has gone meanwhile
                continue
            finally:
                os.close(descriptor)
    finally:
        os.close(place)


def read_sockets() -> tuple[str, ...]:
    """Listening TCP and bound UDP sockets as `tcp 0.0.0.0 5432`; an IPv6 wildcard serves both."""
    try:
        found = _from_diag()
    except OSError:  # this kernel lacks inet_diag
        found = _from_files()
    return tuple(sorted(set(found)))


def _from_diag() -> list[str]:
    """Ask for listening sockets alone: the files also walk all connections of the machine."""
    found = []
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG
    ) as door:
        door.bind((0, 0))
        for protocol, number, states in (("tcp", 6, 1 << 10), ("udp", 17, 1 << 7)):
            for family in (socket.AF_INET, socket.AF_INET6):
                body = _QUESTION.pack(family, number, 0, 0, states) + bytes(48)
                for data, start, _ in dump(door, _BY_FAMILY, body, _BY_FAMILY):
                    found.append(f"{protocol} {_bound_to(data, start, family)}")
    return found


def _bound_to(data: bytes, start: int, family: int) -> str:
    """Address and port of one inet_diag_msg."""
    port = int.from_bytes(data[start + 4 : start + 6], "big")
    if family == socket.AF_INET:
        return f"{IPv4Address(data[start + 8 : start + 12])} {port}"
    return f"{IPv6Address(data[start + 8 : start + 24])} {port}"


def _from_files() -> list[str]:
    found: list[str] = []
    for protocol, state in (("tcp", _LISTEN), ("udp", _BOUND)):
        for suffix in ("", "6"):
            found += _sockets(Path(f"/proc/thread-self/net/{protocol}{suffix}"), protocol, state)
    return found


def _sockets(path: Path, protocol: str, state: str) -> Iterator[str]:
    try:
        lines = path.read_text().splitlines()[1:]
    except OSError:  # a kernel without IPv6
        return
    for line in lines:
        fields = line.split()
        if fields[3] == state:
            address, _, port = fields[1].partition(":")
            yield f"{protocol} {_address(address)} {int(port, 16)}"


def _address(text: str) -> str:
    """The kernel prints each 32-bit word of an address in the machine's byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = b"".join(word.to_bytes(4, "little") for word in words)
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))
