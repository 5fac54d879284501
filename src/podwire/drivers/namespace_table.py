"""Every network namespace this process can see, and what keeps each of them alive.

A namespace lives as long as a process or thread runs in it, a mount shows it, or a descriptor
refers to it. Sockets hold one, too, but no file of /proc says so; a namespace that only a socket
holds stays out of sight.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.errors import PodwireError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NETWORK_NAMESPACE = re.compile(r"net:\[(\d+)\]")
_CONTAINER = re.compile(r"\b([0-9a-f]{64})\b")
_INODE = re.compile(r"^ino:\s*(\d+)$", re.MULTILINE)
_FIRST_KERNEL_INODE = 0xF0000000
"""PROC_DYNAMIC_FIRST in fs/proc/generic.c."""
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that runs in a namespace, with at least one thread."""

    pid: int
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """An open file that refers to a namespace."""

    pid: int
    number: int
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkNamespace:
    """One network namespace and all that keeps it alive, as far as it is visible."""

    inode: int
    path: str
    """A path by which it can be opened now."""
    names: tuple[str, ...] = ()
    """Names under /run/netns."""
    mounts: tuple[str, ...] = ()
    """Other places where it is mounted; one in a foreign mount namespace begins with /proc."""
    processes: tuple[Process, ...] = ()
    descriptors: tuple[Descriptor, ...] = ()
    container: str | None = None
    """First twelve digits of the ID of the container whose processes run here."""
    own: bool = False
    """The namespace of this process."""
    initial: bool = False
    """The namespace of process 1 or of kernel threads: the host's, or the container's."""

    @property
    def title(self) -> str:
        """What to call it in a table."""
        if self.names:
            return self.names[0]
        if self.initial:
            return "host"
        if self.own:
            return "this one"
        if self.mounts:
            return Path(self.mounts[0]).name
        if self.processes:
            first = self.processes[0]
            return f"pid {first.pid} ({first.command})"
        return f"net:[{self.inode}]"


@dataclass(slots=True)
class _Gathered:
    path: str
    names: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    guests: list[Process] = field(default_factory=list)
    """Processes that have a thread here while they live elsewhere; it may leave at any moment."""
    descriptors: list[Descriptor] = field(default_factory=list)
    kernel: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What was found, and what stayed hidden."""

    namespaces: tuple[NetworkNamespace, ...]
    unseen: tuple[str, ...]
    """Sentences about what this process may not look at."""


def look(*, descriptors: bool = True) -> Sight:
    """Look through /run/netns, all mounts, processes, threads and (slower) open files."""
    gathered: dict[int, _Gathered] = {}
    names = namespaces.named()
    for name, inode in names.items():
        path = str(namespaces.named_path(name))
        gathered.setdefault(inode, _Gathered(path)).names.append(name)
    hidden = _from_processes(gathered, descriptors=descriptors)
    _from_mounts(gathered)
    own = _inode("/proc/thread-self/ns/net")
    initial = _inode("/proc/1/ns/net")
    found = tuple(
        NetworkNamespace(
            inode=inode,
            path=seen.path,
            names=tuple(seen.names),
            mounts=tuple(dict.fromkeys(seen.mounts)),
            processes=(*seen.processes, *seen.guests),
            descriptors=tuple(seen.descriptors),
            container=None
            if inode in {own, initial}
            else _container([*seen.processes, *seen.guests]),
            own=inode == own,
            initial=inode == initial or seen.kernel,
        )
        for inode, seen in gathered.items()
    )
    unseen = (f"{hidden} processes of other users (run as root)",) if hidden else ()
    ordered = sorted(found, key=lambda one: (not one.initial, not one.own, one.title))
    return Sight(namespaces=tuple(ordered), unseen=unseen)


def command_of(pid: int) -> str:
    """The short name of a process; `?` when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() or "?"
    except OSError:
        return "?"


def container_in(cgroups: str) -> str | None:
    """The short container ID in the text of a /proc/PID/cgroup file. Pure.

    Docker, containerd and CRI-O all end the name of the control group in 64 hex digits.
    """
    found = _CONTAINER.findall(cgroups)
    return found[-1][:12] if found else None


def _container(processes: list[Process]) -> str | None:
    for process in processes:
        with suppress(OSError):
            return container_in(Path(f"/proc/{process.pid}/cgroup").read_text())
    return None


def _from_processes(gathered: dict[int, _Gathered], *, descriptors: bool) -> int:
    """Note every process by the namespaces of its threads; how many may not be looked at."""
    hidden = 0
    for pid in namespaces.process_ids():
        try:
            tasks = {_inode(f"/proc/{pid}/ns/net"): f"/proc/{pid}/ns/net"}
            for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                path = f"/proc/{pid}/task/{task}/ns/net"
                tasks.setdefault(_inode(path), path)
        except PermissionError:
            hidden += 1
            continue
        except OSError:  # it ended meanwhile
            continue
        command = command_of(pid)
        kernel = _is_kernel_thread(pid)
        for inode, path in tasks.items():
            if inode:
                seen = gathered.setdefault(inode, _Gathered(path))
                seen.kernel = seen.kernel or kernel
                at_home = "/task/" not in path
                if at_home and not (seen.names or seen.processes):
                    seen.path = path  # outlives a guest's thread and descriptor
                if not kernel:
                    (seen.processes if at_home else seen.guests).append(
                        Process(pid=pid, command=command)
                    )
        if descriptors:
            for number, inode in _open_namespaces(pid):
                seen = gathered.setdefault(inode, _Gathered(f"/proc/{pid}/fd/{number}"))
                seen.descriptors.append(Descriptor(pid=pid, number=number, command=command))
    return hidden


def _is_kernel_thread(pid: int) -> bool:
    """Kernel threads have no command line; they run in the host's first namespace, always."""
    try:
        return pid > 1 and not Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _open_namespaces(pid: int) -> Iterator[tuple[int, int]]:
    """(number, inode) of the open files of a process that refer to a network namespace."""
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError, PodwireError):
                target = os.readlink(entry.path)  # noqa: PTH115
                match = _NETWORK_NAMESPACE.fullmatch(target)
                if match is not None:
                    yield int(entry.name), int(match[1])
                elif target.startswith("/") and _may_be_namespace(pid, entry.name):
                    # Opened through a mount: the link then shows the path of the mount.
                    with namespaces.opened(entry.path) as descriptor:
                        yield int(entry.name), namespaces.inode_of(descriptor)


def _may_be_namespace(pid: int, number: str) -> bool:
    """Whether an open file has an inode as the kernel's own file systems have them.

    Asked without touching the file, whose server may be away. The kernel tells since 5.14.
    """
    match = _INODE.search(Path(f"/proc/{pid}/fdinfo/{number}").read_text())
    return match is not None and int(match[1]) >= _FIRST_KERNEL_INODE


def _from_mounts(gathered: dict[int, _Gathered]) -> None:
    """Note the mounts of every mount namespace in sight, each read through one of its processes."""
    own = _inode("/proc/self/ns/mnt")
    read: set[int] = set()
    for pid in [os.getpid(), *namespaces.process_ids()]:
        with suppress(OSError):
            inode = Path(f"/proc/{pid}/ns/mnt").stat().st_ino
            if inode in read:
                continue
            read.add(inode)
            prefix = "" if inode == own else f"/proc/{pid}/root"
            text = Path(f"/proc/{pid}/mountinfo").read_text()
            for network, place in namespace_mounts(text):
                _note_mount(gathered, network, place, prefix)


def _note_mount(gathered: dict[int, _Gathered], inode: int, place: str, prefix: str) -> None:
    seen = gathered.setdefault(inode, _Gathered(prefix + place))
    path = Path(place)
    if path.parent.name == "netns" and path.name in seen.names:
        return  # a name seen already; other mount namespaces show copies of it
    if prefix and place in seen.mounts:
        return
    seen.mounts.append(prefix + place)


def namespace_mounts(mountinfo: str) -> Iterator[tuple[int, str]]:
    """(inode, mount point) of the network namespaces in the text of a mountinfo file. Pure."""
    for line in mountinfo.splitlines():
        words = line.split(" ")
        match = _NETWORK_NAMESPACE.fullmatch(words[3]) if len(words) > 4 else None
        if match is not None:
            place = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), words[4])
            yield int(match[1]), place


def _inode(path: str) -> int:
    try:
        return Path(path).stat().st_ino
    except FileNotFoundError:
        return 0
    except PermissionError:
        if path.startswith("/proc/1/"):
            return 0
        raise
