"""The spool: DELs that could not be carried out when they came, one file each.

The plugin writes it while the agent is away, the agent while the datastore is. A file holds the
plugin's call (model/cni.py), but draining reads three things from it and believes nothing else:
network, container ID and interface name.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import structlog

from podwire.errors import BadInput, PodwireError
from podwire.model.cni import FRAME_LIMIT, Call, Command, decode_call, encode_call
from podwire.model.cnicall import is_container_id, is_interface_name, network_name, parse_document
from podwire.model.endpoint import AttachmentKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUFFIX = ".del"
BROKEN = ".broken"
SPOOLED_BYTES = 4096
"""What a DEL takes on the disk."""

log = structlog.get_logger(__name__)


class Spool:
    """The directory of DELs to be done. Thread-safe: every file is read, done and removed alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def prepare(self) -> None:
        """Make the directory, for its owner only; an existing one is corrected.

        Raises:
            BadInput: it cannot be made, or belongs to somebody else.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.stat()
            if status.st_uid != os.geteuid():
                raise BadInput(
                    f"spoolDir {self.directory} belongs to user {status.st_uid}",
                    fix="give it to the agent's user",
                )
            if stat.S_IMODE(status.st_mode) & 0o077:
                self.directory.chmod(0o700)
        except OSError as error:
            raise BadInput(f"spoolDir {self.directory}: {error.strerror}") from error

    def keep(self, key: AttachmentKey) -> None:
        """Write a DEL down; when this returns it survives a power cut.

        Raises:
            OSError: it cannot be written.
        """
        call = Call(
            environment={
                "CNI_COMMAND": Command.DEL,
                "CNI_CONTAINERID": key.container_id,
                "CNI_IFNAME": key.interface,
            },
            stdin=msgspec.json.encode({"name": key.network}),
        )
        name = f"{time.time_ns()}-{os.getpid()}{SUFFIX}"
        hidden = self.directory / f".{name}"
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Contents, then the name, then the folder: a power cut leaves a whole file or none.
            with open(  # only open() takes an opener, and the mode must be exact
                hidden, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)
            ) as file:
                file.write(encode_call(call))
                file.flush()
                os.fsync(file.fileno())
            hidden.rename(self.directory / name)
            os.fsync(folder)
        finally:
            os.close(folder)

    def check_writable(self) -> None:
        """Raise unless a DEL could be written down; leaves nothing.

        Raises:
            BadInput: the directory takes no file, or its disk is full.
        """
        try:
            # It has no name, where the file system can, so that a power cut leaves nothing either.
            with tempfile.TemporaryFile(dir=self.directory, buffering=0) as file:
                os.posix_fallocate(file.fileno(), 0, SPOOLED_BYTES)
        except OSError as error:
            raise BadInput(
                f"spoolDir {self.directory} takes no file: {error.strerror}",
                fix="free space there, or make it writable for the agent",
            ) from error

    def pending(self) -> tuple[Path, ...]:
        """The files to be done, oldest first."""
        try:
            names = sorted(os.listdir(self.directory))  # noqa: PTH208  # ten times as quick
        except OSError:
            return ()
        return tuple(self.directory / name for name in names if is_waiting(name))

    def keys(self) -> frozenset[AttachmentKey]:
        """The attachments whose DEL waits; a file that cannot be read names none."""
        found = set()
        for path in self.pending():
            with suppress(BadInput):
                key = read_key(path)
                if key is not None:
                    found.add(key)
        return frozenset(found)

    def age_s(self, pending: tuple[Path, ...]) -> float:
        """Seconds since the first of these files was written; 0 when there is none any more."""
        try:
            return max(0.0, time.time() - pending[0].stat().st_mtime) if pending else 0.0
        except OSError:
            return 0.0

    def drain(
        self, detach: Callable[[AttachmentKey], None], only: AttachmentKey | None = None
    ) -> int:
        """Do what is written down (for one attachment, or all); how many were done.

        A DEL that fails stays for the next time and holds up no other. A file that cannot be read
        is set aside under another name.
        """
        done = 0
        for path in self.pending():
            try:
                key = read_key(path)
            except BadInput as error:
                log.warning("spooled DEL is broken", file=path.name, reason=str(error))
                with suppress(OSError):
                    path.rename(path.with_suffix(BROKEN))
                continue
            if key is None or (only is not None and key != only):
                continue
            try:
                detach(key)
            except (PodwireError, OSError) as error:
                log.warning("spooled DEL failed", container=key.container_id, reason=str(error))
                continue
            with suppress(OSError):
                path.unlink()
            done += 1
        return done


def is_waiting(name: str) -> bool:
    """Whether a file of that name is a DEL to be done; names with a dot are being written."""
    return name.endswith(SUFFIX) and not name.startswith(".")


def read_key(path: Path) -> AttachmentKey | None:
    """The attachment a file speaks of; None when the file has just gone.

    Raises:
        BadInput: it names none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{path.name} cannot be opened: {error.strerror}") from None
    with open(descriptor, "rb") as file:  # noqa: PTH123
        call = decode_call(file.read(FRAME_LIMIT))
    container_id = call.environment.get("CNI_CONTAINERID", "")
    interface = call.environment.get("CNI_IFNAME", "")
    if not is_container_id(container_id) or not is_interface_name(interface):
        raise BadInput(f"{path.name} names no container and interface")
    network = network_name(parse_document(call.stdin))
    return AttachmentKey(network=network, container_id=container_id, interface=interface)
