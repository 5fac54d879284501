"""Bundles: kernel states in one file, to be looked at elsewhere or later.

A bundle is a .tgz with a folder that holds `manifest.json` and one JSON document for each network
namespace (docs/reference/bundle.md). Nothing of it is ever unpacked to a disk, so no name in it can
lead anywhere. The unpacked folder is read as well.
"""

from __future__ import annotations

import gc
import gzip
import io
import os
import re
import socket
import tarfile
import tempfile
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import msgspec

from podwire import __version__
from podwire.errors import BadInput
from podwire.model.statecodec import decode_state, encode_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from podwire.model.kernelstate import KernelState

SCHEMA = "podwire.bundle/v1"
FOLDER = "podwire-bundle"
MANIFEST = "manifest.json"
STATES = "states"
MEMBER_BYTES = 256 << 20
"""No document of ours comes near it; a larger one is a mistake or an attack."""
SMALL_BYTES = 256 << 20
"""What any bundle may unpack to, however small it is."""
INFLATION = 200
"""How many times its own size a larger one may unpack to; thousands of pods alike come to 50."""
COMPRESSION = 4
"""Of 9: beyond it a bundle gets little smaller and much slower to write."""


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whence and when a bundle is."""

    podwire: str
    """Version of the program that wrote it."""
    host: str
    kernel: str
    """Release of the kernel of the collecting host."""
    time_ns: int
    """Wall clock, nanoseconds since 1970."""
    nodes: tuple[str, ...] = ()
    """Other nodes that were asked."""


def facts_here(nodes: tuple[str, ...] = ()) -> Facts:
    """Facts of a bundle that this process writes now."""
    return Facts(
        podwire=__version__,
        host=socket.gethostname(),
        kernel=os.uname().release,
        time_ns=time.time_ns(),
        nodes=nodes,
    )


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    file: str
    inode: int
    title: str


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    schema: str
    facts: Facts
    states: tuple[_Entry, ...]


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle holds."""

    facts: Facts
    states: tuple[KernelState, ...]


def write_bundle(path: Path, states: Sequence[KernelState], facts: Facts) -> None:
    """Write a bundle whole or not at all; an older file of that name is replaced.

    Only its owner may read it: it tells the addresses and rules of a network.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            pack_bundle(file, states, facts)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException as error:
        with suppress(OSError):
            Path(name).unlink()
        if isinstance(error, OSError):
            raise BadInput(f"{path} cannot be written: {error.strerror}") from None
        raise


def pack_bundle(file: IO[bytes], states: Sequence[KernelState], facts: Facts) -> None:
    """Write a bundle into a file or pipe that is open."""
    entries = tuple(
        _Entry(
            file=f"{STATES}/{number:05}-{_slug(state.namespace.title)}.json",
            inode=state.namespace.inode,
            title=state.namespace.title,
        )
        for number, state in enumerate(states)
    )
    manifest = _Manifest(schema=SCHEMA, facts=facts, states=entries)
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=COMPRESSION) as archive:
        # First, so that a reader knows early what it has before it.
        head = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        _add(archive, MANIFEST, head, facts.time_ns)
        for entry, state in zip(entries, states, strict=True):
            _add(archive, entry.file, encode_state(state), facts.time_ns)


def _add(archive: tarfile.TarFile, name: str, content: bytes, time_ns: int) -> None:
    member = tarfile.TarInfo(f"{FOLDER}/{name}")
    member.size = len(content)
    member.mtime = time_ns // 1_000_000_000
    member.mode = 0o600
    archive.addfile(member, io.BytesIO(content))


def _slug(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", title).strip("._")[:60] or "netns"


def read_bundle(path: Path) -> Bundle:
    """Read a bundle, or the folder that came out of one.

    Raises:
        BadInput: there is none, it is damaged, or it is something else; names the member.
    """
    with _without_collector():
        return _assemble(path, _documents(path))


def unpack_bundle(data: bytes, what: str) -> Bundle:
    """Read the bytes of a bundle; `what` names them.

    Raises:
        BadInput: they are damaged, or something else.
    """
    with _without_collector():
        return _assemble(Path(what), _members(Path(what), io.BytesIO(data)))


def _documents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every document, the manifest's name first in the folder."""
    return _from_folder(path) if path.is_dir() else _members(path, path)


def _members(path: Path, archive_file: Path | io.BytesIO) -> Iterator[tuple[str, bytes]]:
    try:
        # tarfile's own reader of streams does not look at the checksum at their end.
        with _Bounded(path, archive_file) as file:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                for member in archive:
                    name = _checked(path, member)
                    if name is not None:
                        content = archive.extractfile(member)
                        assert content is not None
                        yield name, content.read()
            while file.read(1 << 20):
                pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{path} cannot be read: {reason}", fix="give a bundle") from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BadInput(
            f"{path} is damaged or no bundle: {error}", fix="write it with `podwire collect -o`"
        ) from None


class _Bounded(gzip.GzipFile):
    """The unpacked stream; refuses to go on where a few bytes become gigabytes."""

    def __init__(self, path: Path, archive_file: Path | io.BytesIO) -> None:
        self._path = path
        if isinstance(archive_file, Path):
            super().__init__(archive_file, "rb")
            packed = archive_file.stat().st_size
        else:
            super().__init__(fileobj=archive_file, mode="rb")
            packed = archive_file.getbuffer().nbytes
        self._left = max(SMALL_BYTES, packed * INFLATION)

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes.

        Raises:
            BadInput: there are too many of them.
        """
        found = super().read(size)
        self._left -= len(found)
        if self._left < 0:
            raise BadInput(
                f"{self._path} unpacks to far more than it should", fix="do not trust this file"
            )
        return found


def _checked(path: Path, member: tarfile.TarInfo) -> str | None:
    """The member's name below the bundle's folder; None for one that holds nothing of ours."""
    where = f"{path}: member {member.name!r}"
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        raise BadInput(f"{where} leads out of the bundle", fix="do not trust this file")
    if member.isdir():
        return None
    if not member.isreg():
        raise BadInput(f"{where} is no plain file", fix="do not trust this file")
    if member.size > MEMBER_BYTES:
        raise BadInput(f"{where} has {member.size} bytes", fix="do not trust this file")
    return "/".join(parts[1:]) if len(parts) > 1 else None


def _from_folder(path: Path) -> Iterator[tuple[str, bytes]]:
    for name in (MANIFEST, *sorted(f"{STATES}/{each.name}" for each in _entries(path / STATES))):
        try:
            yield name, (path / name).read_bytes()
        except FileNotFoundError:  # told by name where it is missed
            continue
        except OSError as error:
            raise BadInput(f"{path / name} cannot be read: {error.strerror}") from None


def _entries(folder: Path) -> list[Path]:
    return list(folder.glob("*.json")) if folder.is_dir() else []


def _assemble(path: Path, documents: Iterable[tuple[str, bytes]]) -> Bundle:
    manifest: _Manifest | None = None
    states: dict[str, KernelState] = {}
    for name, content in documents:
        where = f"{path}: {name}"
        if name == MANIFEST:
            manifest = _manifest(content, where)
        elif name.startswith(f"{STATES}/") and name not in states:
            states[name] = decode_state(content, where)
    if manifest is None:
        raise BadInput(
            f"{path} is no bundle: it has no {MANIFEST}", fix="write one with `podwire collect -o`"
        )
    for entry in manifest.states:
        if entry.file not in states:
            raise BadInput(
                f"{path} is damaged: {entry.file} ({entry.title}) is missing",
                fix="collect it once more",
            )
    return Bundle(
        facts=manifest.facts, states=tuple(states[entry.file] for entry in manifest.states)
    )


def _manifest(content: bytes, where: str) -> _Manifest:
    try:
        found = msgspec.json.decode(content, type=_Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput(f"{where} is damaged: {error}") from None
    if found.schema != SCHEMA:
        raise BadInput(f"{where} has the schema {found.schema!r}", fix=f"podwire reads {SCHEMA}")
    return found


@contextmanager
def _without_collector() -> Iterator[None]:
    """Hundreds of thousands of records are made and none is garbage: do not search for it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
