"""Networks, ordinals and addresses; the only place where address text is parsed.

An *ordinal* is an address's position inside its block: 0 … size - 1.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING, TypeAlias

from podwire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
IPInterface: TypeAlias = IPv4Interface | IPv6Interface

POD_GATEWAY = IPv4Address("169.254.1.1")
"""Next hop of every pod's default route; the host answers for it by proxy ARP."""


def parse_address(text: str, what: str = "address") -> IPAddress:
    """Read an address.

    Raises:
        BadInput: `text` is not an IPv4 or IPv6 address; the message begins with `what`.
    """
    try:
        return ip_address(text)
    except ValueError:
        raise BadInput(
            f"{what} {text!r} is not an IP address", fix="write it like 10.244.0.7"
        ) from None


def parse_network(text: str, what: str = "CIDR") -> IPNetwork:
    """Read a network in CIDR form whose host bits are zero.

    Raises:
        BadInput: no network, or host bits are set (the message then names the right network).
    """
    try:
        return ip_network(text)
    except ValueError:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise BadInput(
                f"{what} {text!r} is not a network", fix="write it like 10.244.0.0/16"
            ) from None
        raise BadInput(
            f"{what} {text!r} has bits set behind its prefix", fix=f"write {meant}"
        ) from None


def parse_interface(text: str, what: str = "address") -> IPInterface:
    """Read an address with its prefix length; without one it is a single host's.

    Raises:
        BadInput: `text` is neither.
    """
    try:
        return ip_interface(text)
    except ValueError:
        raise BadInput(
            f"{what} {text!r} is not an address with a prefix length",
            fix="write it like 192.168.26.103/24",
        ) from None


def host_network(address: IPAddress) -> IPNetwork:
    """The /32 or /128 of one address."""
    return IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)


def contains(outer: IPNetwork, inner: IPNetwork | IPAddress) -> bool:
    """Whether `inner` lies wholly inside `outer`; False across families."""
    # Asked for every route of every pool: by numbers, because `subnet_of` makes four addresses.
    if isinstance(inner, IPv4Network | IPv6Network):
        first, length = int(inner.network_address), inner.prefixlen
    else:
        first, length = int(inner), inner.max_prefixlen
    width = outer.prefixlen
    if outer.version != inner.version or length < width:
        return False
    return (first ^ int(outer.network_address)) >> (outer.max_prefixlen - width) == 0


def ordinal_of(block: IPNetwork, address: IPAddress) -> int:
    """Position of `address` inside `block`.

    Raises:
        ValueError: the address is outside the block.
    """
    if not contains(block, address):
        raise ValueError(f"{address} is outside {block}")
    return int(address) - int(block.network_address)


def address_at(block: IPNetwork, ordinal: int) -> IPAddress:
    """The address at position `ordinal` of `block`.

    Raises:
        ValueError: the ordinal is outside 0 … size - 1.
    """
    if not 0 <= ordinal < block.num_addresses:
        raise ValueError(f"ordinal {ordinal} is outside {block}")
    return block.network_address + ordinal


def block_count(cidr: IPNetwork, block_size: int) -> int:
    """How many blocks of prefix length `block_size` the network holds."""
    return 1 << (block_size - cidr.prefixlen)


def block_at(cidr: IPNetwork, block_size: int, index: int) -> IPNetwork:
    """The `index`-th block (0 … block_count - 1) of the network, in address order."""
    size = 1 << (cidr.max_prefixlen - block_size)
    first = cidr.network_address + index * size
    return ip_network(f"{first}/{block_size}")


def block_holding(address: IPAddress, block_size: int) -> IPNetwork:
    """The aligned block of prefix length `block_size` in which the address lies."""
    return ip_network(f"{address}/{block_size}", strict=False)


def blocks_from(cidr: IPNetwork, block_size: int, start: int) -> Iterator[IPNetwork]:
    """All blocks of the network once, beginning at index `start` and wrapping around."""
    count = block_count(cidr, block_size)
    for step in range(count):
        yield block_at(cidr, block_size, (start + step) % count)
