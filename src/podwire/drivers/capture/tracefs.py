"""A private instance of the kernel's tracing: its own buffer, its own events, its own filters.

tracefs is mounted apart from all mount namespaces, so nobody else sees a change. An instance would
outlive a process that is killed; so a small guard, a shell, waits at a pipe for our end, however it
comes about, and removes it. The guard runs before the instance is made. What a guard could not
remove (a PID namespace ends with all its processes at once) goes when the next instance is made.
Source: Documentation/trace/ftrace.rst (instances), fsopen(2), fsmount(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from podwire.errors import Forbidden, InUse, PodwireError, Unsupported

PREFIX = "podwire-"
"""How the names of our instances begin."""
MOUNTED = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
LOCK_S = 2.0
"""The longest wait for another trace that is just being set up."""
PATIENCE_S = 3.0
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
"""Numbers of the system calls (Linux 5.2), the same on all processors."""
_CLOEXEC, _CREATE = 1, 6
_GUARD = """
trap '' HUP INT QUIT TERM PIPE
while read -r _; do :; done
tries=0
while [ -d "$1" ] && [ $tries -lt 400 ] && ! rmdir "$1" 2>/dev/null; do
    tries=$((tries + 1))
    sleep 0.05
done
"""
"""The end of its input is our end. An instance is busy until our last file in it is closed."""
_PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Instance:
    """One instance; a context manager that removes it.

    Every method raises OSError when the kernel refuses.
    """

    name: str
    _guard: subprocess.Popen[bytes]
    _pipe: int
    _place: int
    """Descriptor of its directory."""
    _stream: int
    """Descriptor of `trace_pipe`; it also shows others that somebody holds this instance."""
    _text: bytearray = field(default_factory=bytearray)

    @classmethod
    def make(cls) -> Instance:
        """Make one, and remove those that nobody holds any more.

        Raises:
            Forbidden: the caller may not trace the kernel.
            InUse: somebody else has been setting one up for seconds.
            Unsupported: this kernel has no tracefs.
        """
        instances = _open_instances()
        try:
            # Until ours is held: so nobody takes a new one for a forgotten one.
            _lock(instances)
            _remove_forgotten(instances)
            return cls._make_in(instances)
        except OSError as error:
            raise refused(error) from None
        finally:
            os.close(instances)

    @classmethod
    def _make_in(cls, instances: int) -> Instance:
        name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        guard, pipe = _start_guard(instances, name)
        opened: list[int] = []
        try:
            os.mkdir(name, dir_fd=instances)
            flags = os.O_RDONLY | os.O_CLOEXEC
            opened.append(os.open(name, flags | os.O_DIRECTORY, dir_fd=instances))
            opened.append(os.open("trace_pipe", flags | os.O_NONBLOCK, dir_fd=opened[0]))
        except BaseException:
            for each in (*opened, pipe):
                os.close(each)
            guard.wait()
            raise
        place, stream = opened
        return cls(name, guard, pipe, place, stream)

    def read(self, name: str) -> str:
        """The text of one of its files."""
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._place)
        with open(descriptor) as file:  # noqa: PTH123  # a descriptor
            return file.read()

    def write(self, name: str, value: str) -> None:
        """Set one of its files."""
        descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._place)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)

    def lines(self) -> list[str]:
        """What was traced since the last time; never waits."""
        with suppress(BlockingIOError):
            while data := os.read(self._stream, 1 << 16):
                self._text += data
        whole, _, rest = self._text.rpartition(b"\n")
        self._text = bytearray(rest)
        return whole.decode(errors="replace").splitlines()

    def close(self) -> None:
        """Have it removed, and wait for that, but not for long; safe to repeat."""
        if self._pipe < 0:
            return
        for descriptor in (self._stream, self._place, self._pipe):
            os.close(descriptor)
        self._pipe = -1
        # Somebody who looks into it holds it up; the guard goes on trying without us.
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_instances() -> int:
    """A descriptor of the directory of all instances.

    Raises:
        Forbidden: the caller may not trace the kernel.
        Unsupported: this kernel has no tracefs.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    for path in MOUNTED:
        with suppress(OSError):
            return os.open(f"{path}/instances", flags)
    try:
        root = _mount_apart()
    except OSError as error:
        raise refused(error) from None
    try:
        return os.open("instances", flags, dir_fd=root)
    except OSError as error:
        raise refused(error) from None
    finally:
        os.close(root)


def _mount_apart() -> int:
    """A descriptor of the file system, mounted nowhere; it ends with the last one below it."""
    context = _call(_FSOPEN, b"tracefs", _CLOEXEC)
    try:
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        return _call(_FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)


def _call(number: int, *arguments: bytes | int | None) -> int:
    found = int(_libc.syscall(number, *arguments))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found


def _lock(instances: int) -> None:
    end = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(instances, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise InUse("another trace holds the kernel's tracing", fix="try again") from None
            time.sleep(0.01)
        else:
            return


def _remove_forgotten(instances: int) -> None:
    """One that is held is busy, and stays."""
    for name in os.listdir(instances):
        if name.startswith(PREFIX):
            with suppress(OSError):
                os.rmdir(name, dir_fd=instances)


def _start_guard(instances: int, name: str) -> tuple[subprocess.Popen[bytes], int]:
    """The guard, and the end of its pipe that nobody but this process holds."""
    there, here = os.pipe2(os.O_CLOEXEC)
    try:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "podwire-trace-guard", name],
            stdin=there,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=f"/proc/self/fd/{instances}",
            env=_PATH,
            # What is sent to our group, SIGKILL too, shall not reach it.
            start_new_session=True,
        )
    except BaseException:
        os.close(here)
        raise
    finally:
        os.close(there)
    return guard, here


def refused(error: OSError) -> PodwireError:
    """Why the kernel's tracing cannot be used, in words."""
    if error.errno in {errno.EPERM, errno.EACCES}:
        return Forbidden(
            "the kernel's reasons of drops may not be read",
            fix="this needs CAP_SYS_ADMIN on the machine itself, not only in a user namespace",
        )
    if error.errno in {errno.ENODEV, errno.ENOSYS, errno.ENOENT}:
        return Unsupported(
            "this kernel does not tell reasons of drops",
            fix="this needs tracefs with the event skb:kfree_skb (Linux 5.17)",
        )
    return Unsupported(f"the kernel's tracing cannot be used: {error.strerror}")
