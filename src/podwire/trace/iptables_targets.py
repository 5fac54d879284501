"""Targets of iptables as `nft -j` writes them."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]
PASSING = frozenset(
    {"LOG", "NFLOG", "TRACE", "TCPMSS", "CHECKSUM", "CLASSIFY", "AUDIT", "SET", "SECMARK",
     "CONNSECMARK", "IDLETIMER", "LED", "RATEEST", "ULOG"}
)  # fmt: skip
"""Targets after which the next rule is asked, and that change nothing that routes a packet."""
UNKNOWN = frozenset(
    {"NFQUEUE", "QUEUE", "TPROXY", "SYNPROXY", "NETMAP", "TEE", "CLUSTERIP", "DSCP", "TOS", "TTL",
     "HL", "ECN", "HMARK", "TCPOPTSTRIP", "DNPT", "SNPT"}
)  # fmt: skip
_MARK = {"meta": {"key": "mark"}}
_CONNECTION_MARK = {"ct": {"key": "mark"}}
_FULL = 0xFFFFFFFF


def target(name: str, options: list[str]) -> list[JSON] | None:
    """The statements; None when the name is that of a chain."""
    if name in PASSING:
        return [{"log": None}]
    if name in UNKNOWN:
        return [{"xt": {"target": " ".join([name, *options])}}]
    if name in {"ACCEPT", "DROP", "RETURN"}:
        return [{name.lower(): None}]
    if name == "NOTRACK" or (name == "CT" and options == ["--notrack"]):
        return [{"notrack": None}]
    return _with_options(name, _options(options))


def _with_options(name: str, values: dict[str, str]) -> list[JSON] | None:
    match name:
        case "REJECT":
            return [{"reject": _reject(values.get("--reject-with", ""))}]
        case "MASQUERADE":
            return [{"masquerade": _ports(values)}]
        case "REDIRECT":
            return [{"redirect": _ports(values)}]
        case "SNAT":
            return [{"snat": _translation(values["--to-source"], values)}]
        case "DNAT":
            return [{"dnat": _translation(values["--to-destination"], values)}]
        case "MARK":
            return _marked(_MARK, values)
        case "CONNMARK":
            return _connection_mark(values)
        case "CT":
            return [{"xt": {"target": f"CT {values}"}}]
    return None


def _options(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word
            found[name] = ""
        else:
            found[name] = f"{found.get(name, '')} {word}".strip()
    return found


def _reject(how: str) -> JSON | None:
    # A table of iptables has one family: the kind of the error excludes nothing.
    return {"type": "tcp reset"} if how == "tcp-reset" else {"expr": how}


def _flags(values: dict[str, str]) -> JSON:
    flags = [name for name in ("--random", "--random-fully") if name in values]
    return {"flags": flags} if flags else {}


def _ports(values: dict[str, str]) -> JSON | None:
    ports = values.get("--to-ports")
    found = _flags(values)
    if ports:
        found["port"] = _range(ports)
    return found or None


def _range(text: str) -> Any:
    low, dash, high = text.partition("-")
    return {"range": [int(low), int(high)]} if dash else int(low)


def _translation(text: str, values: dict[str, str]) -> JSON:
    """`10.0.0.1`, `10.0.0.1-10.0.0.9:80-90`, `[fd00::1]:80`, `:80`."""
    words = text.split()
    address, port = words[0], ""
    if address.startswith("["):
        address, _, port = address[1:].partition("]")
        port = port.removeprefix(":")
    elif address.count(":") == 1:
        address, _, port = address.partition(":")
    found = _flags(values)
    if address:
        low, dash, high = address.partition("-")
        found["addr"] = {"range": [low, high]} if dash else low
    if port:
        found["port"] = _range(port.partition("/")[0])
    return found


def _marked(key: JSON, values: dict[str, str]) -> list[JSON]:
    """All ways to set a mark are (mark & keep) ^ value, or its or."""
    for option, text in values.items():
        first, _, second = text.partition("/")
        value = int(first, 0) if first else 0
        mask = int(second, 0) if second else _FULL
        match option:
            case "--set-xmark":
                return [_set(key, {"^": [{"&": [key, _FULL & ~mask]}, value]})]
            case "--set-mark":
                return [_set(key, {"|": [{"&": [key, _FULL & ~mask]}, value]})]
            case "--or-mark":
                return [_set(key, {"|": [key, value]})]
            case "--and-mark":
                return [_set(key, {"&": [key, value]})]
            case "--xor-mark":
                return [_set(key, {"^": [key, value]})]
    return [{"xt": {"target": f"MARK {values}"}}]


def _connection_mark(values: dict[str, str]) -> list[JSON]:
    full = hex(_FULL)
    ours = int(values.get("--nfmask", values.get("--mask", full)), 0)
    theirs = int(values.get("--ctmask", values.get("--mask", full)), 0)
    if "--save-mark" in values:
        kept = {"&": [_CONNECTION_MARK, _FULL & ~theirs]}
        return [_set(_CONNECTION_MARK, {"^": [kept, {"&": [_MARK, ours]}]})]
    if "--restore-mark" in values:
        kept = {"&": [_MARK, _FULL & ~ours]}
        return [_set(_MARK, {"^": [kept, {"&": [_CONNECTION_MARK, theirs]}]})]
    return _marked(_CONNECTION_MARK, values)


def _set(key: JSON, value: JSON) -> JSON:
    return {"mangle": {"key": key, "value": value}}
