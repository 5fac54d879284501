"""One rtnetlink request, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from podwire.drivers.netlink.describe import describe


@dataclass(frozen=True, slots=True)
class Request:
    """One change to ask the kernel for."""

    type: int
    flags: int
    payload: bytes
    """Body and attributes, without the message header."""
    verb: str
    about: object
    """The value or name that is changed; only an error message looks at it."""
    follow: Request | None = None
    """Sent after this one has succeeded, and only then."""

    @property
    def subject(self) -> str:
        """What is being done to what, for an error message."""
        return f"{self.verb} {describe(self.about)}"
