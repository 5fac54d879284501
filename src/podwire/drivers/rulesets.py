"""Rule sets and classifiers of the calling thread's network namespace.

The `nft` program is started only where the kernel says that there are tables: most namespaces have
none, and asking the kernel takes microseconds.
"""

from __future__ import annotations

import errno
import json
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING

from podwire.drivers.netlink import wire
from podwire.drivers.netlink.session import open_socket
from podwire.drivers.nft_listing import decode_table, questions, without_traces
from podwire.errors import Forbidden, KernelError
from podwire.model.kernelstate import Missing, Read
from podwire.model.nft_text import lacks_devices, with_devices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podwire.drivers.nft_listing import Table
    from podwire.model.kernelstate import Section

NETLINK_NETFILTER = 12
_NEWTABLE, _GETTABLE = 0x0A00, 0x0A01
_NEWGEN, _GETGEN = 0x0A0F, 0x0A10
_GENERATION = 1
_FAMILY = Struct("=BBH")
_NEWQDISC, _GETQDISC = 36, 38
_TRAFFIC = Struct("=BBHiIII")
_KIND = 1
HARMLESS = frozenset({"noqueue", "noop", "mq", "pfifo_fast", "pfifo", "bfifo", "fq_codel", "fq"})
"""Queues that delay packets and never take any away on purpose."""
TIMEOUT_S = 10
TRIES = 5


def read_nft() -> Section[tuple[Mapping[str, object], ...]]:
    """The `nftables` array of `nft -j list ruleset`, with the kernel's generation.

    Raises:
        KernelError: the kernel refuses to list its tables.
    """
    for _ in range(TRIES):
        tables, generation = _tables()
        found = _read_tables(tables, generation)
        # A table that came or went meanwhile, such as a trace's own, leaves half a picture.
        if isinstance(found, Read) or (tables, generation) == _tables():
            break
    return found


def _read_tables(
    tables: Sequence[Table], generation: int
) -> Section[tuple[Mapping[str, object], ...]]:
    asked = questions(tables)
    if not asked:
        return Read((), time_ns=time.time_ns(), generation=generation)
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        number = sum(not each.of_trace for each in tables)
        return Missing(f"{number} nftables tables are there, and the program nft is not installed")
    found: tuple[Mapping[str, object], ...] = ()
    for arguments in asked:
        text = _run(program, *arguments)
        if isinstance(text, Missing):
            return text
        try:
            found += without_traces(json.loads(text)["nftables"])
        except ValueError:
            # nft 1.0.6 ends in the middle of it, without a complaint.
            called = " ".join(("nft", *arguments))
            return Missing(f"{called}: it breaks off, as at a table that a program owns")
    if lacks_devices(found):
        chains = _run(program, "list", "chains")
        if isinstance(chains, Missing):
            return chains
        found = with_devices(found, chains)
    return Read(found, time_ns=time.time_ns(), generation=generation)


def _tables() -> tuple[tuple[Table, ...], int]:
    """The nftables tables there are, and the rule set's generation."""
    door = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    with door:
        door.bind((0, 0))
        try:
            tables = dump(door, _GETTABLE, _FAMILY.pack(0, 0, 0), _NEWTABLE)
            generation = dump(door, _GETGEN, _FAMILY.pack(0, 0, 0), _NEWGEN, wire.F_ACK)
        except OSError as error:
            # The kernel has no nf_tables, or not loaded: then there are no rules of it.
            if error.errno in {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL}:
                return (), 0
            if isinstance(error, PermissionError):
                raise Forbidden(
                    "nftables rules may not be listed", fix="this needs CAP_NET_ADMIN"
                ) from None
            raise KernelError(
                f"list nftables tables: {error.strerror}",
                errno=error.errno or errno.EIO,
                subject="nftables tables",
            ) from None
    number = 0
    for data, start, end in generation:
        found = wire.attributes(data, start + _FAMILY.size, end)
        number = int.from_bytes(found.get(_GENERATION, b"\0"), "big")
    return tuple(decode_table(*each) for each in tables), number


LEGACY_PROGRAMS = {
    "ip_tables_names": "iptables-legacy-save",
    "ip6_tables_names": "ip6tables-legacy-save",
}


def legacy_tables() -> dict[str, list[str]]:
    """Names of the tables that iptables-legacy has here, by the program that lists each family.

    Raises:
        OSError: they may not be read.
    """
    found = {}
    for file, program in LEGACY_PROGRAMS.items():
        with suppress(FileNotFoundError):
            found[program] = Path(f"/proc/thread-self/net/{file}").read_text().split()
    return {program: tables for program, tables in found.items() if tables}


def read_legacy() -> Section[str]:
    """What iptables-legacy holds for both families; empty where it has no table."""
    texts = []
    try:
        held = legacy_tables()
    except OSError as error:
        return Missing(f"{error.filename}: {error.strerror}: this needs root")
    for program, tables in held.items():
        found = _run(program)
        if isinstance(found, Missing):
            return Missing(f"it has the tables {', '.join(tables)}; {found.reason}")
        texts.append(found)
    return Read("".join(texts), time_ns=time.time_ns())


def read_compatible(nft: Section[tuple[Mapping[str, object], ...]]) -> Section[str]:
    """`iptables-nft-save` and `ip6tables-nft-save`, where nft's own listing hides extensions."""
    if isinstance(nft, Missing):
        return Missing(nft.reason)
    families = hidden_families(nft.value)
    texts = []
    for family, program in (("ip", "iptables-nft-save"), ("ip6", "ip6tables-nft-save")):
        if family in families:
            found = _run(program)
            if isinstance(found, Missing):
                return found
            texts.append(found)
    return Read("".join(texts), time_ns=time.time_ns())


def hidden_families(entries: Iterable[Mapping[str, object]]) -> set[object]:
    """Families in which nft's listing has rules whose extensions only iptables can tell."""
    return {
        rule["family"]
        for entry in entries
        if isinstance(rule := entry.get("rule"), dict) and _hides(rule)
    }


def _hides(rule: Mapping[str, object]) -> bool:
    statements = rule.get("expr")
    return isinstance(statements, list) and any("xt" in each for each in statements)


def read_ipsets(*rules: Section[str]) -> Section[str]:
    """`ipset save`, where iptables' rules name sets."""
    if not any(isinstance(each, Read) and "--match-set" in each.value for each in rules):
        return Read("", time_ns=time.time_ns())
    found = _run("ipset", "save")
    return found if isinstance(found, Missing) else Read(found, time_ns=time.time_ns())


def _run(name: str, *arguments: str) -> str | Missing:
    program = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        return Missing(f"{name} is not installed")
    name = " ".join((Path(name).name, *arguments))
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, check=False, timeout=TIMEOUT_S, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Missing(f"{name}: {error}")
    complaint = done.stderr.strip() or done.returncode
    return Missing(f"{name}: {complaint}") if done.returncode else done.stdout


def read_classifiers() -> tuple[str, ...]:
    """Queues and classifier hooks that can take packets away, as `3 clsact` (link index, kind)."""
    body = _TRAFFIC.pack(0, 0, 0, 0, 0, 0, 0)
    found = []
    with open_socket() as door:
        for data, start, end in dump(door, _GETQDISC, body, _NEWQDISC):
            index = _TRAFFIC.unpack_from(data, start)[3]
            kind = wire.string(wire.attributes(data, start + _TRAFFIC.size, end)[_KIND])
            if kind not in HARMLESS:
                found.append(f"{index} {kind}")
    return tuple(sorted(set(found)))


def dump(
    door: socket.socket, kind: int, body: bytes, wanted: int, flags: int = wire.F_DUMP
) -> list[tuple[bytes, int, int]]:
    """All messages of one listing on any netlink socket: datagram, start and end of the body.

    Raises:
        OSError: the kernel refused.
    """
    door.send(wire.HEADER.pack(16 + len(body), kind, wire.F_REQUEST | flags, 1, 0) + body)
    found = []
    while True:
        data = door.recv(1 << 16)
        for got, _, _, _, start, end in wire.messages(data):
            if got == wanted:
                found.append((data, start, end))
            elif got in {wire.NLMSG_DONE, wire.NLMSG_ERROR}:
                # The end of a listing says, too, that there was none: sock_diag without a module.
                code = -int.from_bytes(data[start : start + 4], "little", signed=True)
                if code:
                    raise OSError(code, "refused")
                return found
