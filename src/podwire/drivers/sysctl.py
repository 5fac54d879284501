"""Kernel settings below /proc/sys, in the network namespace of the calling thread.

Names are written with slashes (`net/ipv4/conf/cali12/proxy_arp`), because interface names may
contain dots. /proc/sys/net shows the namespace of the thread that opens the file, so a setting of
another namespace is read and written through `namespaces.call_in`.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podwire.errors import Forbidden, KernelError, NotThere

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "/proc/sys"
_LONGEST = 4096


def read(name: str) -> str | None:
    """The setting's text without the final newline; None when this kernel does not have it.

    Raises:
        Forbidden: it may not be read.
    """
    try:
        descriptor = os.open(f"{ROOT}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _LONGEST).rstrip(b"\n").decode()
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise _refused(error, f"read sysctl {name}") from None


def write(name: str, value: str | int) -> bool:
    """Make the setting so; whether it had to be changed.

    Raises:
        NotThere: this kernel has no such setting, or the device in its name is gone.
        Forbidden: it may not be written.
        KernelError: the kernel refuses the value.
    """
    text = str(value)
    with _opened(name, text, os.O_RDWR) as descriptor:
        if os.read(descriptor, _LONGEST).rstrip(b"\n").decode() == text:
            return False
        os.pwrite(descriptor, text.encode(), 0)
    return True


def put(name: str, value: str) -> None:
    """Make the setting so, without a look at what it was: of a device that was just made.

    Raises:
        NotThere, Forbidden, KernelError: as `write`.
    """
    with _opened(name, value, os.O_WRONLY) as descriptor:
        os.write(descriptor, value.encode())


@contextmanager
def _opened(name: str, text: str, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(f"{ROOT}/{name}", flags | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _refused(error, f"set sysctl {name} to {text}") from None


# A setting of a device that goes away while it is open answers ENODEV or EINVAL, older ones EIO.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV})


def _refused(error: OSError, subject: str) -> Forbidden | KernelError:
    number = error.errno or errno.EIO
    message = f"{subject}: {os.strerror(number)}"
    if number in {errno.EPERM, errno.EACCES, errno.EROFS}:
        return Forbidden(message, fix="run as root of this network namespace")
    family = NotThere if number in _ABSENT else KernelError
    return family(message, errno=number, subject=subject)
