"""Every error of ours, in one tree; the class says what the caller can do about it.

PodwireError
├── Transient               try again later; a loop retries it and nobody is woken
│   ├── DatastoreUnavailable    away, read-only, full, or too slow
│   ├── AgentUnavailable        the node agent does not greet
│   ├── BirdAway                no BIRD listens on its control socket
│   ├── BirdSilent              BIRD listens and does not answer: it hangs
│   └── LinkNotReady            a device is down or not there yet
├── Rejected                a human must change something first
│   ├── BadInput                a file, flag or field; names place and fix
│   ├── NotFound                the named object does not exist
│   ├── InUse                   the object may not be removed or changed now
│   ├── NoPool                  no enabled IPPool serves this node and use
│   ├── PoolExhausted           the pools that serve this node are full
│   ├── AddressTaken            the address asked for belongs to somebody else
│   ├── InterfaceExists         the interface name is taken
│   ├── Unsupported             this kernel or program lacks what is needed
│   └── Forbidden               the caller lacks a right; names it
├── Stale                   what we knew is old: read again, decide again
│   ├── Conflict                the revision moved
│   ├── AlreadyExists           create found the key taken
│   └── Compacted               the watch's start is no longer kept
│       └── Restored                the datastore is an older state of itself
└── KernelError             the kernel said no; carries errno and the object
    └── NotThere                ENODEV, ESRCH, ENOENT: deleting it again is success
"""

from __future__ import annotations


class PodwireError(Exception):
    """Base of all errors of ours.

    Attributes:
        message: what is wrong, naming the object.
        fix: what the reader can do about it, as an imperative sentence; None when nothing is known.
    """

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return self.message if self.fix is None else f"{self.message} ({self.fix})"


class Transient(PodwireError):
    """Trying again later can succeed without anybody's help."""


class DatastoreUnavailable(Transient):
    """The datastore is away, read-only, full or too slow."""


class AgentUnavailable(Transient):
    """The node agent does not greet on its socket."""


class BirdAway(Transient):
    """No BIRD listens on its control socket: it is not running."""


class BirdSilent(Transient):
    """BIRD listens on its control socket and does not answer: it hangs."""


class LinkNotReady(Transient):
    """A network device is down or not there yet."""


class Rejected(PodwireError):
    """A human must change something before this can succeed."""


class BadInput(Rejected):
    """A file, flag or field is wrong; the message names the place."""


class NotFound(Rejected):
    """The named object does not exist."""


class InUse(Rejected):
    """The object may not be removed or changed while others rely on it."""


class NoPool(Rejected):
    """No enabled IPPool serves this node and use."""


class PoolExhausted(Rejected):
    """The pools that serve this node have no free address left."""


class AddressTaken(Rejected):
    """The address asked for belongs to somebody else."""


class InterfaceExists(Rejected):
    """The interface name is taken by something that is not this attachment."""


class Unsupported(Rejected):
    """This kernel or program lacks what is needed; the message names the feature."""


class Forbidden(Rejected):
    """The caller lacks a right; the message names it."""


class Stale(PodwireError):
    """What we knew is old: read again, decide again."""


class Conflict(Stale):
    """The object was changed since it was read."""


class AlreadyExists(Stale):
    """Create found the key taken."""


class Compacted(Stale):
    """The revision a watch should start from is no longer kept: list again."""


class Restored(Compacted):
    """The datastore was restored from a backup: list again, and trust nothing known before."""


class KernelError(PodwireError):
    """The kernel refused; `errno` is positive, `subject` names the object."""

    def __init__(self, message: str, *, errno: int, subject: str, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.errno = errno
        self.subject = subject


class NotThere(KernelError):
    """The object is not in the kernel; deleting it again is success."""
