"""Reach: what was found on the way to a peer, beside what BIRD says of its session."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What became of an attempt to open a TCP connection."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    SILENT = "silent"
    """Nothing came back in time."""
    UNREACHABLE = "unreachable"
    """A router, or our own kernel, says that no way leads there; ARP found nobody."""
    IMPOSSIBLE = "impossible"
    """The attempt could not even be made from that address."""
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatures:
    """How many TCP segments this kernel has dropped for their MD5 signature (RFC 2385)."""

    missing: int = 0
    """TCPMD5NotFound: we want one and there was none."""
    unexpected: int = 0
    """TCPMD5Unexpected: there was one and we want none."""
    wrong: int = 0
    """TCPMD5Failure: made with another password."""

    @property
    def any(self) -> bool:
        """Whether there were some."""
        return bool(self.missing or self.unexpected or self.wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What attempts at the peer came to, and what our own kernel says."""

    plain: Answer = Answer.NOT_TRIED
    """On the port of the session, unsigned."""
    signed: Answer = Answer.NOT_TRIED
    """The same, signed with the password we have for this peer."""
    beside: Answer = Answer.NOT_TRIED
    """On a port where nobody should listen: any answer shows that the machine lives."""
    source_missing: bool = False
    """The address we are to speak from is on no device here."""
    signatures: Signatures = Signatures()
    calls_signed: bool = False
    """The peer calls us with a signature, though we have no password for it."""


NOT_TRIED = Reach()
