"""Parse: what BIRD prints, as values. What a later BIRD adds is passed over."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from podwire.bgp.reply import PROTOCOL_DETAILS, PROTOCOL_LINE, ROUTE_LINE, STATUS_LINE
from podwire.bgp.state import (
    BirdVersion,
    Channel,
    Daemon,
    PeerSession,
    Protocol,
    RibRoute,
    Target,
    Via,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from podwire.bgp.reply import Line, Reply
    from podwire.model.addressing import IPAddress

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_TIME = r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\d(?:\.\d+)?)?|\d\d:\d\d:\d\d(?:\.\d+)?|\S+"
_ROW = re.compile(rf"(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+({_TIME})\s*(.*)")
_ROUTE = re.compile(
    rf"(?P<net>\S+)?\s+(?P<target>unicast|blackhole|unreachable|prohibited|prohibit)\s+"
    rf"\[(?P<protocol>\S+) (?P<since>{_TIME})(?: from (?P<from>[^\]]+))?\]"
    r"(?P<mark> [*!])?(?P<rest>.*)"
)
_INFO = re.compile(r"\((?P<preference>\d+)(?P<stale>s)?(?:/(?P<metric>[^)]*))?\)")
_COUNT = re.compile(r"(\d+) (imported|filtered|exported|preferred)")


def parse_version(text: str) -> BirdVersion | None:
    """The first version number of a text such as `BIRD version 2.0.12`."""
    found = _VERSION.search(text)
    if found is None:
        return None
    major, minor, patch = found.groups(default="0")
    return BirdVersion(int(major), int(minor), int(patch))


def parse_status(reply: Reply) -> Daemon | None:
    """What `show status` says; None when that was not its answer."""
    version, facts, message = None, dict[str, str](), ""
    for line in reply.lines:
        text = line.text.strip()
        if line.code == STATUS_LINE:
            message = text
        elif version is None:
            version = parse_version(text)
        for name in ("Router ID is ", "Last reboot on ", "Last reconfiguration on "):
            if text.startswith(name):
                facts[name] = text.removeprefix(name)
    if version is None:
        return None
    return Daemon(
        version=version,
        router_id=facts.get("Router ID is ", ""),
        started=facts.get("Last reboot on ", ""),
        configured=facts.get("Last reconfiguration on ", ""),
        message=message,
        recovering=any("recovery in progress" in line.text for line in reply.lines),
    )


def parse_protocols(reply: Reply) -> tuple[Protocol, ...]:
    """What `show protocols` or `show protocols all` says."""
    return tuple(_protocol(row, details) for row, details in _groups(reply.lines))


def _groups(lines: Iterable[Line]) -> Iterator[tuple[re.Match[str], list[str]]]:
    """Each row with the lines of its details."""
    row: re.Match[str] | None = None
    details: list[str] = []
    for line in lines:
        if line.code == PROTOCOL_LINE:
            if row is not None:
                yield row, details
            row, details = _ROW.match(line.text), []
        elif line.code == PROTOCOL_DETAILS:
            details.append(line.text)
    if row is not None:
        yield row, details


def _protocol(row: re.Match[str], details: list[str]) -> Protocol:
    name, kind, table, state, since, info = row.groups()
    start = next((n for n, text in enumerate(details) if _is_channel(text)), len(details))
    return Protocol(
        name=name,
        kind=kind,
        table=table,
        state=state,
        since=since,
        info=" ".join(info.split()),
        description=_facts(details[:start]).get("Description", ""),
        channels=tuple(_channels(details[start:])),
        session=_session(details[:start]),
    )


def _is_channel(text: str) -> bool:
    return text.startswith("  Channel ")


def _channels(lines: list[str]) -> Iterator[Channel]:
    starts = [number for number, text in enumerate(lines) if _is_channel(text)]
    for start, end in pairwise([*starts, len(lines)]):
        yield _channel(lines[start].split()[1], lines[start + 1 : end])


def _channel(name: str, lines: list[str]) -> Channel:
    facts = _facts(lines)
    counts = {word: int(number) for number, word in _COUNT.findall(facts.get("Routes", ""))}
    updates = facts.get("Import updates", "").split()
    return Channel(
        name=name,
        state=facts.get("State", ""),
        table=facts.get("Table", ""),
        imported=counts.get("imported", 0),
        filtered=counts.get("filtered", 0),
        exported=counts.get("exported", 0),
        preferred=counts.get("preferred", 0),
        limit_hit=any("[HIT]" in text for text in lines),
        rejected_imports=int(updates[2]) if len(updates) > 2 and updates[2].isdigit() else 0,
    )


def _session(lines: list[str]) -> PeerSession | None:
    facts = _facts(lines)
    address = _address(facts.get("Neighbor address", "").partition("%")[0])
    if address is None:
        return None
    return PeerSession(
        address=address,
        port=_number(facts.get("Neighbor port")) or 179,
        as_number=_number(facts.get("Neighbor AS")) or 0,
        local_as=_number(facts.get("Local AS")) or 0,
        state=facts.get("BGP state", ""),
        last_error=facts.get("Last error", ""),
        source=_address(facts.get("Source address", "")),
        router_id=facts.get("Neighbor ID", ""),
        hold_s=_number(facts.get("Hold timer", "").partition("/")[2]),
        keepalive_s=_number(facts.get("Keepalive timer", "").partition("/")[2]),
        flags=facts.get("Session", ""),
        graceful=_restarts(lines),
    )


def _restarts(lines: list[str]) -> bool:
    """Whether graceful restart is among the capabilities of the other side."""
    theirs = [text.strip() for text in lines]
    if "Neighbor capabilities" not in theirs:
        return False
    return "Graceful restart" in theirs[theirs.index("Neighbor capabilities") :]


def _facts(lines: list[str]) -> dict[str, str]:
    pairs = (text.partition(":") for text in lines if ":" in text)
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_routes(reply: Reply) -> tuple[RibRoute, ...]:
    """What `show route all` says, in any of its selections."""
    found: list[_RouteLines] = []
    net = ""
    for line in reply.lines:
        head = _ROUTE.match(line.text) if line.code == ROUTE_LINE else None
        if head is not None:
            net = head["net"] or net
            found.append(_RouteLines(net, head))
        elif found and line.text.startswith("\t"):
            found[-1].add(line.text.strip())
    return tuple(each.route() for each in found)


class _RouteLines:
    """The lines of one route, while they come."""

    def __init__(self, net: str, head: re.Match[str]) -> None:
        self._net = net
        self._head = head
        self._hops: list[Via] = []
        self._attributes: dict[str, str] = {}

    def add(self, text: str) -> None:
        words = text.split()
        if words[:1] == ["via"] and "on" in words:
            device = words[words.index("on") + 1]
            gateway = _address(words[1])
            self._hops.append(Via(device=device, gateway=gateway, onlink="onlink" in words))
        elif words[:1] == ["dev"]:
            self._hops.append(Via(device=words[1], onlink="onlink" in words))
        elif ":" in text:
            name, _, value = text.partition(":")
            self._attributes[name] = value.strip()

    def route(self) -> RibRoute:
        head = self._head
        info = _INFO.search(head["rest"])
        target = head["target"]
        return RibRoute(
            network=ip_network(self._net),
            target=Target.PROHIBITED if target == "prohibit" else Target(target),
            protocol=head["protocol"],
            since=head["since"],
            learnt_from=_address((head["from"] or "").strip()),
            best=head["mark"] is not None,
            refused=head["mark"] == " !",
            resolvable=info is None or info["metric"] != "-",
            stale=info is not None and info["stale"] is not None,
            preference=0 if info is None else int(info["preference"]),
            hops=tuple(self._hops),
            attributes=_frozen(self._attributes),
        )


def _frozen(attributes: dict[str, str]) -> Mapping[str, str]:
    return MappingProxyType(attributes)


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
