"""Matches of iptables as `nft -j` writes them; every maker takes the same three arguments."""
# ruff: noqa: ARG001

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

JSON = dict[str, Any]


@dataclass(slots=True)
class Words:
    """The words of a line that are still to be read."""

    left: list[str]
    module: str = ""
    """The extension that the last `-m` named."""

    @property
    def is_empty(self) -> bool:
        """Whether all were read."""
        return not self.left

    def next(self) -> str:
        """Take one; empty at the end."""
        return self.left.pop(0) if self.left else ""

    def peek(self) -> str:
        """See one."""
        return self.left[0] if self.left else ""

    def take(self, word: str) -> bool:
        """Take it if it is this one."""
        if self.left and self.left[0] == word:
            self.left.pop(0)
            return True
        return False

    def rest(self) -> list[str]:
        """Take all."""
        found, self.left = self.left, []
        return found

    def values(self) -> list[str]:
        """Take what belongs to an option that is not known."""
        found = []
        while self.left and not self.left[0].startswith("-") and self.left[0] != "!":
            found.append(self.left.pop(0))
        return found


@dataclass(slots=True)
class IPSet:
    """One set of ipset."""

    fields: tuple[str, ...]
    """ip, net, port, mac, iface, mark, set; with their order."""
    storage: str = "hash"
    elements: list[Any] = field(default_factory=list)
    unknown: bool = False
    """It holds something that is not modelled."""

    def add(self, text: str, *, exclude: bool) -> None:
        """One element as `ipset save` prints it."""
        parts = text.split(",")
        if exclude or len(parts) != len(self.fields) or self.storage == "list":
            self.unknown = True
            return
        made: list[Any] = []
        for name, part in zip(self.fields, parts, strict=True):
            if name == "port":
                protocol, _, port = part.rpartition(":")
                made += [protocol or "tcp", _number_or_range(port)]
            elif name in {"ip", "net"}:
                made.append(_address(part))
            elif name == "mark":
                made.append(int(part, 0))
            else:
                made.append(part)
                self.unknown = self.unknown or name != "iface"
        self.elements.append(made[0] if len(made) == 1 else {"concat": made})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the other words of the rule say."""

    version: int
    protocol: str | None
    ipsets: Mapping[str, IPSet]


def equal(left: JSON, right: Any, inverted: bool = False) -> JSON:
    """A match statement."""
    return {"match": {"op": "!=" if inverted else "==", "left": left, "right": right}}


def field_of(protocol: str, name: str) -> JSON:
    """A header field."""
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> JSON:
    """A field of the packet's metadata."""
    return {"meta": {"key": key}}


def match(option: str, words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    """The statements for one option and its values."""
    maker = SIMPLE.get(option)
    if words.module in {"limit", "hashlimit"}:
        words.values()
        return [{"limit": {}}]
    if words.module in UNKNOWN_MODULES or maker is None:
        told = [option, *words.values()]
        return [{"xt": {"match": f"-m {words.module} {' '.join(told)}"}}]
    if option.startswith("--") and words.take("!"):
        inverted = True
    return maker(words, inverted, setting)


UNKNOWN_MODULES = frozenset(
    {"recent", "string", "u32", "bpf", "owner", "physdev", "mac", "socket", "ipvs", "connlimit",
     "connbytes", "time", "quota", "cgroup", "geoip", "policy", "helper", "nfacct", "tcpmss"}
)  # fmt: skip


def _number_or_range(text: str) -> Any:
    low, colon, high = text.replace("-", ":").partition(":")
    if not colon:
        return int(low, 0)
    return {"range": [int(low or "0", 0), int(high or "65535", 0)]}


def _address(text: str) -> Any:
    address, slash, length = text.partition("/")
    if "-" in text:
        low, _, high = text.partition("-")
        return {"range": [low, high]}
    if not slash:
        return address
    if not length.isdigit():
        length = str(sum(int(part).bit_count() for part in length.split(".")))
    return {"prefix": {"addr": address, "len": int(length)}}


def _addresses(name: str) -> Maker:
    def make(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
        family = "ip" if setting.version == 4 else "ip6"
        return [equal(field_of(family, name), _address(words.next()), inverted)]

    return make


def _link(key: str) -> Maker:
    def make(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
        name = words.next()
        return [equal(meta(key), f"{name[:-1]}*" if name.endswith("+") else name, inverted)]

    return make


def _protocol(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    name = words.next()
    if name in {"all", "0"}:
        return []
    return [equal(meta("l4proto"), int(name) if name.isdigit() else name, inverted)]


def _port(name: str) -> Maker:
    def make(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
        several = [_number_or_range(each) for each in words.next().split(",")]
        right = several[0] if len(several) == 1 else {"set": several}
        return [equal(field_of(setting.protocol or "th", name), right, inverted)]

    return make


def _either_port(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    here = Words([words.peek()])
    both = [*_port("sport")(here, inverted, setting), *_port("dport")(words, inverted, setting)]
    return both if inverted else [{"either": both}]


def _states(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    names = words.next().lower().split(",")
    ways = [name for name in names if name in {"snat", "dnat"}]
    bits = [name for name in names if name not in ways]
    found = [
        {"match": {"op": "in", "left": {"ct": {"key": key}}, "right": values}}
        for key, values in (("state", bits), ("status", ways))
        if values
    ]
    if inverted:
        return [_without(each) for each in found]
    return found if len(found) == 1 else [{"either": found}]


def _statuses(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    names = [name.lower().replace("_", "-") for name in words.next().split(",")]
    found = {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": names}}
    return [_without(found) if inverted else found]


def _without(statement: JSON) -> JSON:
    return {"match": {**statement["match"], "op": "!"}}


def _direction(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    return [equal({"ct": {"key": "direction"}}, words.next().lower(), inverted)]


def _mark(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    left = {"ct": {"key": "mark"}} if words.module == "connmark" else meta("mark")
    value, _, mask = words.next().partition("/")
    masked = {"&": [left, int(mask, 0)]} if mask else left
    return [equal(masked, int(value, 0), inverted)]


def _address_type(flag: str) -> Maker:
    def make(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
        names = [name.lower() for name in words.next().split(",")]
        flags = [flag]
        if "--limit-iface-in" in words.left:
            flags.append("iif")
        if "--limit-iface-out" in words.left:
            flags.append("oif")
        left = {"fib": {"result": "type", "flags": flags}}
        return [equal(left, {"set": names}, inverted)]

    return make


def _nothing(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    return []


def _in_set(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    name, sides = words.next(), words.next().split(",")
    found = setting.ipsets.get(name)
    told = f"-m set --match-set {name} {','.join(sides)}"
    if found is None or found.unknown or len(sides) < len(found.fields):
        return [{"xt": {"match": told}}]
    family = "ip" if setting.version == 4 else "ip6"
    parts: list[JSON] = []
    for kind, side in zip(found.fields, sides, strict=False):
        source = side == "src"
        if kind in {"ip", "net"}:
            parts.append(field_of(family, "saddr" if source else "daddr"))
        elif kind == "port":
            parts += [meta("l4proto"), field_of("th", "sport" if source else "dport")]
        elif kind == "iface":
            parts.append(meta("iifname" if source else "oifname"))
        else:
            parts.append(meta("mark"))
    left = parts[0] if len(parts) == 1 else {"concat": parts}
    return [equal(left, {"set": found.elements}, inverted)]


def _chance(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    return [{"chance": None}] if words.next() in {"random", "nth"} else []


def _skip_value(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    words.next()
    return []


def _icmp(protocol: str) -> Maker:
    def make(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
        kind, _, code = words.next().partition("/")
        if kind in {"any", "255"}:
            return []
        found = [equal(field_of(protocol, "type"), int(kind) if kind.isdigit() else kind, inverted)]
        if code:
            found.append(equal(field_of(protocol, "code"), int(code)))
        return found

    return make


def _tcp_flags(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    def names(text: str) -> Any:
        flags = [each for each in text.lower().split(",") if each != "none"]
        flags = ["fin", "syn", "rst", "psh", "ack", "urg"] if flags == ["all"] else flags
        return {"|": flags} if flags else 0

    mask, wanted = names(words.next()), names(words.next())
    return [equal({"&": [field_of("tcp", "flags"), mask]}, wanted, inverted)]


def _syn(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    mask = {"|": ["fin", "syn", "rst", "ack"]}
    return [equal({"&": [field_of("tcp", "flags"), mask]}, "syn", inverted)]


def _range(name: str) -> Maker:
    def make(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
        family = "ip" if setting.version == 4 else "ip6"
        return [equal(field_of(family, name), _address(words.next()), inverted)]

    return make


def _length(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    return [equal(meta("length"), _number_or_range(words.next()), inverted)]


def _packet_type(words: Words, inverted: bool, setting: Setting) -> list[JSON]:
    return [equal(meta("pkttype"), words.next().lower(), inverted)]


def reverse_path(words: Words) -> list[JSON]:
    """`-m rpfilter`: the packet fits when the way back is by its own link."""
    options = set()
    while words.peek() in {"--loose", "--validmark", "--accept-local", "--invert"}:
        options.add(words.next())
    if "--accept-local" in options:
        return [{"xt": {"match": "-m rpfilter --accept-local"}}]
    flags = ["saddr"]
    flags += [] if "--loose" in options else ["iif"]
    flags += ["mark"] if "--validmark" in options else []
    left = {"fib": {"result": "oif", "flags": flags}}
    return [equal(left, right=False, inverted="--invert" not in options)]


if TYPE_CHECKING:
    Maker = Callable[[Words, bool, Setting], list[JSON]]

SIMPLE: Mapping[str, Maker] = {
    "-s": _addresses("saddr"),
    "-d": _addresses("daddr"),
    "-i": _link("iifname"),
    "-o": _link("oifname"),
    "-p": _protocol,
    "--sport": _port("sport"),
    "--dport": _port("dport"),
    "--sports": _port("sport"),
    "--dports": _port("dport"),
    "--ports": _either_port,
    "--state": _states,
    "--ctstate": _states,
    "--ctstatus": _statuses,
    "--ctdir": _direction,
    "--mark": _mark,
    "--src-type": _address_type("saddr"),
    "--dst-type": _address_type("daddr"),
    "--limit-iface-in": _nothing,
    "--limit-iface-out": _nothing,
    "--match-set": _in_set,
    "--mode": _chance,
    "--probability": _skip_value,
    "--every": _skip_value,
    "--packet": _skip_value,
    "--icmp-type": _icmp("icmp"),
    "--icmpv6-type": _icmp("icmpv6"),
    "--tcp-flags": _tcp_flags,
    "--syn": _syn,
    "--src-range": _range("saddr"),
    "--dst-range": _range("daddr"),
    "--length": _length,
    "--pkt-type": _packet_type,
}
