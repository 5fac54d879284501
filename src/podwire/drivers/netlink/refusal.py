"""The kernel's "no" → an error of ours, by number; the only place where errno is judged."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from podwire.drivers.netlink import wire
from podwire.errors import (
    Forbidden,
    InterfaceExists,
    KernelError,
    LinkNotReady,
    NotThere,
    PodwireError,
    Unsupported,
)

if TYPE_CHECKING:
    from podwire.drivers.netlink.request import Request

_ATTR_MSG = 1
# EADDRNOTAVAIL is how a device says that it does not have the address to delete.
_ABSENT = frozenset({errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL})
_LACKING = frozenset({errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})


def error_number(data: bytes, start: int, end: int) -> int:
    """The errno of an NLMSG_ERROR or NLMSG_DONE message, positive; 0 is the acknowledgement."""
    if start + 4 > end:
        return 0
    return -wire.i32(data[start : start + 4])


def explanation(data: bytes, flags: int, start: int, end: int) -> str | None:
    """The kernel's own sentence (extended ACK) in an NLMSG_ERROR message, when it gave one."""
    if not flags & wire.F_ACK_TLVS or start + 20 > end:
        return None
    request_length = wire.u32(data[start + 4 : start + 8])
    behind = start + 20 if flags & wire.F_CAPPED else start + 4 + ((request_length + 3) & ~3)
    text = wire.attributes(data, behind, end).get(_ATTR_MSG)
    return wire.string(text).strip().rstrip(".") if text else None


def refused(number: int, subject: str, sentence: str | None = None) -> KernelError:
    """KernelError, or NotThere when the object is absent."""
    reason = os.strerror(number)
    if sentence and sentence.lower() != reason.lower():
        reason = f"{sentence} ({reason})"
    family = NotThere if number in _ABSENT else KernelError
    return family(f"{subject}: {reason}", errno=number, subject=subject)


def translated(error: KernelError, request: Request | None = None) -> PodwireError:
    """The error a caller can act on, by its class; `error` itself where there is no better one."""
    number = error.errno
    if number in {errno.EPERM, errno.EACCES}:
        return Forbidden(
            error.message, fix="run as root, or inside `unshare --user --map-root-user --net`"
        )
    if number in _LACKING:
        return Unsupported(f"{error.message}; this kernel lacks it")
    if number == errno.ENETDOWN:
        return LinkNotReady(error.message)
    creates_link = request is not None and request.type in {wire.NEWLINK, wire.SETLINK}
    if number == errno.EEXIST and creates_link:
        return InterfaceExists(error.message)
    return error
