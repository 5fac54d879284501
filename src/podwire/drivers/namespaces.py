"""Network namespaces: open, enter for one call, name, and see who keeps them alive.

Python 3.11 has no `os.setns` and no `os.unshare`, so both go through the C library.
Source: setns(2), unshare(2), ioctl_ns(2); ip-netns(8) for the names under /run/netns.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from podwire.errors import BadInput, Forbidden, InUse, KernelError, NotFound, NotThere, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
R = TypeVar("R")

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

NS_GET_NSTYPE = 0xB703

NAMED_DIR = Path("/run/netns")
"""Where `ip netns` keeps its names; each is a bind mount of a namespace."""

_libc = ctypes.CDLL(None, use_errno=True)


def setns(descriptor: int, kind: int = CLONE_NEWNET) -> None:
    """Move the calling thread into a namespace; other threads stay where they are.

    The network namespace it is in already needs no right.

    Raises:
        Forbidden: the caller lacks CAP_SYS_ADMIN here or over that namespace.
        KernelError: any other refusal of setns(2).
    """
    if _libc.setns(descriptor, kind) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EPERM and kind == CLONE_NEWNET and _is_here(descriptor):
        return
    raise _refused(number, "enter a namespace")


def _is_here(descriptor: int) -> bool:
    here = current_namespace()
    try:
        return inode_of(here) == inode_of(descriptor)
    finally:
        os.close(here)


def unshare(kind: int = CLONE_NEWNET) -> None:
    """Move the calling thread into fresh namespaces of the given kinds (CLONE_NEW*, or-ed).

    Raises:
        Forbidden: the caller lacks CAP_SYS_ADMIN.
        KernelError: any other refusal of unshare(2).
    """
    if _libc.unshare(kind) != 0:
        raise _refused(ctypes.get_errno(), "make a namespace")


def mount(source: str, target: str | Path, kind: str = "none", flags: int = 0) -> None:
    """Mount without options; raises as `setns` does."""
    code = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, None)
    if code != 0:
        raise _refused(ctypes.get_errno(), f"mount {target}")


def unmount(target: str | Path, flags: int = MNT_DETACH) -> None:
    """Unmount, lazily by default: a busy mount goes as soon as it can."""
    if _libc.umount2(os.fsencode(target), flags) != 0:
        raise _refused(ctypes.get_errno(), f"unmount {target}")


def open_namespace(path: str | Path) -> int:
    """Open a network namespace; the caller closes the descriptor.

    A descriptor keeps the namespace alive, and what it refers to cannot be exchanged any more.

    Raises:
        BadInput: nothing is at `path`, or it is not a network namespace.
        Forbidden: the path may not be opened.
    """
    try:
        # Not blocking: what the path names may be a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except PermissionError:
        raise Forbidden(
            f"network namespace {path} may not be opened", fix="run as root or as its owner"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(
            f"network namespace {path} cannot be opened: {reason}",
            fix="podwire netns list shows those there are",
        ) from None
    if not is_network_namespace(descriptor):
        os.close(descriptor)
        raise BadInput(
            f"{path} is not a network namespace", fix="give a path such as /run/netns/NAME"
        )
    return descriptor


def is_network_namespace(descriptor: int) -> bool:
    """Whether an open descriptor refers to a network namespace."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    try:
        return fcntl.ioctl(descriptor, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False


def inode_of(descriptor: int) -> int:
    """The namespace's identity in this kernel."""
    return os.fstat(descriptor).st_ino


def current_namespace() -> int:
    """A descriptor of the calling thread's network namespace; the caller closes it."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def opened(path: str | Path) -> Iterator[int]:
    """`open_namespace`, closed at the end of the block."""
    descriptor = open_namespace(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def call_in(descriptor: int, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function inside a network namespace and hand back what it returns or raises.

    It runs in a thread of its own that ends afterwards: a thread that changed its namespace could
    otherwise serve somebody else there by mistake. Sockets it opens stay in that namespace.

    Raises:
        Forbidden: the namespace may not be entered.
    """
    return _in_thread(setns, descriptor, function, *args, **kwargs)


def call_in_new(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function in a new network namespace, which ends with the call and all that is in it.

    Raises:
        Forbidden: no namespace may be made.
    """
    return _in_thread(unshare, CLONE_NEWNET, function, *args, **kwargs)


def _in_thread(
    move: Callable[[int], None],
    target: int,
    function: Callable[P, R],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    results: list[R] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            move(target)
            results.append(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="in-namespace")
    thread.start()
    thread.join()
    if failures:
        # Without this the error would refer to its own frame and live until the next collection,
        # and with it every descriptor its frames hold.
        error = failures.pop()
        try:
            raise error
        finally:
            del error
    return results[0]


def create_named(name: str) -> None:
    """Make a fresh network namespace under /run/netns, as `ip netns add` does.

    Raises:
        BadInput: `name` cannot be a file name.
        InUse: the name is taken.
        Forbidden: the caller may not make namespaces or mounts.
    """
    path = named_path(name)
    try:
        _share_names()
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0)
    except FileExistsError:
        raise InUse(f"network namespace {name} exists", fix="choose another name") from None
    except OSError as error:
        raise _refused(error.errno or errno.EIO, f"create {path}") from None
    os.close(descriptor)
    try:
        _in_thread(unshare, CLONE_NEWNET, mount, "/proc/thread-self/ns/net", path, "none", MS_BIND)
    except BaseException:
        path.unlink()
        raise


def delete_named(name: str) -> None:
    """Take a name away; the namespace itself ends with its last process, mount and descriptor.

    Raises:
        NotFound: there is no such name.
        Forbidden: the caller may not unmount.
    """
    path = named_path(name)
    # EINVAL: a name whose mount is in another mount namespace, or a left-over plain file.
    with suppress(_NotMounted):
        _unmount_name(path)
    try:
        path.unlink()
    except FileNotFoundError:
        raise NotFound(
            f"network namespace {name} does not exist",
            fix="podwire netns list shows those there are",
        ) from None
    except OSError as error:
        raise _refused(error.errno or errno.EIO, f"delete {path}") from None


def named_path(name: str) -> Path:
    """The path of a name.

    Raises:
        BadInput: `name` cannot be a file name.
    """
    if not name or name in {".", ".."} or "/" in name or "\0" in name or len(name) > 255:
        raise BadInput(
            f"{name!r} cannot name a network namespace", fix="use a plain file name without slashes"
        )
    return NAMED_DIR / name


def named() -> dict[str, int]:
    """Inode by name of every namespace under /run/netns; plain files there are left out."""
    names: dict[str, int] = {}
    kernel = _namespace_device()
    try:
        entries = sorted(NAMED_DIR.iterdir())
    except OSError:
        return names
    for path in entries:
        with suppress(OSError):
            status = path.stat()
            if status.st_dev == kernel:
                names[path.name] = status.st_ino
    return names


def holders() -> dict[int, tuple[int, ...]]:
    """Process ids by inode of the network namespace they run in, as far as this process may see."""
    found: dict[int, list[int]] = {}
    for pid in process_ids():
        with suppress(OSError):
            found.setdefault(Path(f"/proc/{pid}/ns/net").stat().st_ino, []).append(pid)
    return {inode: tuple(pids) for inode, pids in found.items()}


def paths() -> dict[int, str]:
    """A path by inode of every network namespace in sight: named ones, Docker's, processes'."""
    found: dict[int, str] = {}
    kernel = _namespace_device()
    for pid in process_ids():
        with suppress(OSError):
            path = f"/proc/{pid}/ns/net"
            found.setdefault(Path(path).stat().st_ino, path)
    for directory in (NAMED_DIR, Path("/run/docker/netns")):
        with suppress(OSError):
            for entry in sorted(directory.iterdir()):
                status = entry.stat()
                if status.st_dev == kernel:
                    found[status.st_ino] = str(entry)
    return found


def process_ids() -> list[int]:
    """All process ids in /proc, in order."""
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208


class _NotMounted(Exception):
    """The path is no mount point here."""


def _unmount_name(path: Path) -> None:
    try:
        unmount(path)
    except KernelError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT}:
            raise _NotMounted from None
        raise


def _share_names() -> None:
    """Make /run/netns a shared mount, so that other mount namespaces follow changes in it."""
    NAMED_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        mount("none", NAMED_DIR, flags=MS_SHARED | MS_REC)
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        # Not a mount point yet: bind it onto itself first.
        mount(str(NAMED_DIR), NAMED_DIR, flags=MS_BIND | MS_REC)
        mount("none", NAMED_DIR, flags=MS_SHARED | MS_REC)


def _namespace_device() -> int:
    """Device number of the kernel's file system of namespaces (nsfs)."""
    return Path("/proc/self/ns/net").stat().st_dev


def _refused(number: int, subject: str) -> Forbidden | Unsupported | KernelError:
    reason = os.strerror(number)
    if number in {errno.EPERM, errno.EACCES, errno.EROFS}:
        # What is done here needs no other capability; the rest are rights to files.
        lacking = "this needs CAP_SYS_ADMIN: " if number == errno.EPERM else ""
        fix = f"{lacking}run as root, or inside `unshare --user --map-root-user`"
        return Forbidden(f"{subject}: {reason}", fix=fix)
    if number == errno.ENOSYS:
        return Unsupported(f"{subject}: {reason}")
    family = NotThere if number in {errno.ENOENT, errno.ESRCH} else KernelError
    return family(f"{subject}: {reason}", errno=number, subject=subject)
