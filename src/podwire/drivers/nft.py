"""Our tables of nftables: written and listed whole, changed element by element, listened to.

A whole table is one transaction, all or nothing. That needs the program `nft`, whose start
takes milliseconds, which an ADD must not spend; elements are one message over netlink.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from podwire.drivers.netlink import nftobjects, wire
from podwire.drivers.netlink.nftables import NETLINK_NETFILTER
from podwire.drivers.netlink.session import DATAGRAM, RECEIVE_BUFFER, SOL_NETLINK, enlarge
from podwire.drivers.nft_listing import decode_table
from podwire.drivers.rulesets import dump
from podwire.errors import KernelError, Unsupported
from podwire.model.nftelement import TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.drivers.netlink.nftobjects import Counter, Touched
    from podwire.model.nftelement import Element

TIMEOUT_S = 10.0
_GETTABLE, _NEWTABLE = 0x0A01, 0x0A00
_ADD_MEMBERSHIP, _CHANGES = 1, 7
"""NFNLGRP_NFTABLES: who changed what."""


def write_rules(text: str) -> None:
    """Carry out a script in the calling thread's network namespace.

    Raises:
        Unsupported: there is no nft here, or no nf_tables in the kernel.
        KernelError: it was refused; nothing was changed.
    """
    _nft("-f", "-", text=text)


def list_table(family: str) -> str:
    """Our table of a family, without the state of its counters, in the words of `nft`.

    Raises:
        Unsupported, KernelError: as in `write_rules`; the table is not there.
    """
    # -p: names of protocols come from a file that not every machine has.
    return _nft("-s", "-p", "list", "table", family, TABLE)


def _nft(*arguments: str, text: str | None = None) -> str:
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise Unsupported("there is no program nft here", fix="install nftables")
    try:
        done = subprocess.run(
            [program, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise KernelError(
            f"nft does not end within {TIMEOUT_S:.0f} s", errno=errno.ETIMEDOUT, subject="nft"
        ) from None
    if done.returncode:
        problem = done.stderr.strip().partition("\n")[0]
        if "not supported" in problem:
            raise Unsupported("this kernel lacks what the rules need", fix="modprobe nf_tables")
        raise KernelError(f"nftables: {problem}", errno=errno.EINVAL, subject=f"table {TABLE}")
    return done.stdout


class NftDoor:
    """An open way to the rule set of the namespace it was opened in; one thread at a time."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            Unsupported: the kernel has no nf_tables.
        """
        try:
            self._asking = _socket()
            self._listening = _socket()
            # Before the first listing: nothing may fall between the two.
            self._listening.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, _CHANGES)
        except OSError:
            raise Unsupported("this kernel has no nf_tables", fix="modprobe nf_tables") from None
        enlarge(self._listening, RECEIVE_BUFFER)
        self._port: int = self._asking.getsockname()[0]

    def close(self) -> None:
        """Close it."""
        self._asking.close()
        self._listening.close()

    def fileno(self) -> int:
        """Readable when somebody changed rules."""
        return self._listening.fileno()

    def change(self, deleted: Sequence[Element], added: Sequence[Element]) -> None:
        """Take elements away and put others in, all or nothing.

        Raises:
            KernelError: refused; an element to delete, or a set, is not there.
        """
        self._asking.send(nftobjects.change_elements(deleted, added))
        codes = []
        # Every message that has an error tells it; all was said before `send` came back.
        with suppress(BlockingIOError):
            while True:
                data = self._asking.recv(DATAGRAM, socket.MSG_DONTWAIT)
                for kind, _, _, _, start, _ in wire.messages(data):
                    if kind == wire.NLMSG_ERROR:
                        codes.append(int.from_bytes(data[start : start + 4], "little", signed=True))
        code = next((-each for each in codes if each), 0)
        if code:
            raise KernelError(
                f"nftables: {os.strerror(code)}", errno=code, subject=f"sets of {TABLE}"
            )

    def families(self) -> frozenset[str]:
        """In which families our table is there."""
        found = (decode_table(*each) for each in self._list(_GETTABLE, _NEWTABLE))
        return frozenset(table.family for table in found if table.name == TABLE)

    def counters(self) -> tuple[Counter, ...]:
        """The named counters of our tables."""
        found = self._list(nftobjects.GETOBJECT, nftobjects.NEWOBJECT, TABLE)
        return tuple(
            counter for each in found if (counter := nftobjects.decode_counter(*each)) is not None
        )

    def drops_forwarded(self) -> bool:
        """Whether any chain drops forwarded packets unless a rule of its own accepts them."""
        chains = self._list(nftobjects.GETCHAIN, nftobjects.NEWCHAIN)
        return any(nftobjects.drops_forwarded(*each) for each in chains)

    def touched(self) -> Touched:
        """What others changed since the last call; never waits."""
        found = nftobjects.Touched()
        while True:
            try:
                data = self._listening.recv(DATAGRAM, socket.MSG_DONTWAIT)
                found |= nftobjects.touched(data, TABLE, (self._port,))
            except BlockingIOError:
                return found
            except (OSError, wire.Malformed):
                # More than could be kept, or not understood: look at all of it.
                found |= nftobjects.EVERYTHING

    def _list(self, asked: int, wanted: int, table: str = "") -> list[tuple[bytes, int, int]]:
        try:
            return dump(self._asking, asked, nftobjects.question(table), wanted)
        except OSError as error:
            raise KernelError(
                f"nftables: {error.strerror}", errno=error.errno or errno.EIO, subject="nftables"
            ) from None


def _socket() -> socket.socket:
    door = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    door.bind((0, 0))
    return door
