"""Address detection: how a node finds the address it is known by, as configured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.model.addressing import parse_address, parse_network
from podwire.model.nearest import suggestion

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress, IPNetwork


class Method(StrEnum):
    """Calico's methods by Calico's names, and `default-route`, which is ours."""

    DEFAULT_ROUTE = "default-route"
    FIRST_FOUND = "first-found"
    CAN_REACH = "can-reach"
    INTERFACE = "interface"
    SKIP_INTERFACE = "skip-interface"
    CIDR = "cidr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """A method and what it is given."""

    method: Method = Method.DEFAULT_ROUTE
    patterns: tuple[str, ...] = ()
    """Regular expressions, found anywhere in an interface's name; the first one counts most."""
    networks: tuple[IPNetwork, ...] = ()
    destination: IPAddress | None = None


FROM_KUBERNETES = "kubernetes-internal-ip"
_ALONE = {Method.DEFAULT_ROUTE, Method.FIRST_FOUND}
_EXAMPLES = {
    Method.CAN_REACH: "can-reach=192.0.2.1",
    Method.INTERFACE: "interface=eth.*,bond.*",
    Method.SKIP_INTERFACE: "skip-interface=docker.*",
    Method.CIDR: "cidr=10.0.0.0/8,192.168.0.0/16",
}


def parse_detection(text: str) -> Detection:
    """Read a method as Calico's IP_AUTODETECTION_METHOD has it.

    Raises:
        BadInput: there is no such method, or it is given what it cannot use.
    """
    word, _, given = text.strip().partition("=")
    if word == FROM_KUBERNETES:
        raise BadInput(
            f"{FROM_KUBERNETES} needs the Kubernetes API, which is not read yet",
            fix="use cidr=NETWORK with the network of the nodes' addresses, or interface=NAME",
        )
    if word not in set(Method):
        known = [method.value for method in Method]
        fix = suggestion(word, known, f"write one of: {', '.join(known)}")
        raise BadInput(f"there is no method {word!r}", fix=fix)
    method = Method(word)
    parts = tuple(part for part in re.split(r"\s*,\s*", given.strip()) if part)
    if method in _ALONE:
        if given:
            raise BadInput(f"{method} takes nothing behind it", fix=f"write {method} alone")
        return Detection(method=method)
    if not parts:
        raise BadInput(f"{method} lacks its value", fix=f"write it {_EXAMPLES[method]}")
    return _with_value(method, parts)


def _with_value(method: Method, parts: tuple[str, ...]) -> Detection:
    match method:
        case Method.CAN_REACH:
            if len(parts) > 1 or not parts[0][:1].isdigit():
                raise BadInput(
                    f"can-reach takes one IPv4 address, not {','.join(parts)!r}: a name could not"
                    " be looked up before the network is there",
                    fix=f"write it {_EXAMPLES[method]}",
                )
            return Detection(method=method, destination=parse_address(parts[0]))
        case Method.CIDR:
            return Detection(method=method, networks=tuple(map(parse_network, parts)))
        case _:
            for pattern in parts:
                _require_pattern(pattern)
            return Detection(method=method, patterns=parts)


def _require_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadInput(
            f"{pattern!r} is not a regular expression: {error}", fix="write it like eth.*"
        ) from None
