"""The words and values of a trace: dispositions, steps, hops, faults. The JSON follows from these.

Shape: `podwire.trace/v1`, documented in docs/reference/trace.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress
    from podwire.trace.fib import Decision, Query
    from podwire.trace.flow import Flow, Packet
    from podwire.trace.intake import Refusal

SCHEMA = "podwire.trace/v1"


class Disposition(StrEnum):
    """What becomes of a packet and its answer; a fixed list."""

    DELIVERED_AND_ANSWERED = "DELIVERED_AND_ANSWERED"
    DELIVERED_NO_ANSWER = "DELIVERED_NO_ANSWER"
    ANSWERED_BY_OTHER = "ANSWERED_BY_OTHER"
    DENIED = "DENIED"
    REJECTED = "REJECTED"
    NO_ROUTE = "NO_ROUTE"
    NULL_ROUTED = "NULL_ROUTED"
    ROUTE_UNREACHABLE = "ROUTE_UNREACHABLE"
    RPF_FAILED = "RPF_FAILED"
    FORWARDING_OFF = "FORWARDING_OFF"
    NEIGHBOR_FAILED = "NEIGHBOR_FAILED"
    NOT_FOR_ME = "NOT_FOR_ME"
    TOO_BIG = "TOO_BIG"
    TTL_EXPIRED = "TTL_EXPIRED"
    LOOP = "LOOP"
    LOST_ON_LINK = "LOST_ON_LINK"
    MISMATCH = "MISMATCH"
    MODEL_DISAGREES = "MODEL_DISAGREES"
    UNEXPLAINED = "UNEXPLAINED"
    INSUFFICIENT_INFO = "INSUFFICIENT_INFO"

    @property
    def exit_code(self) -> int:
        """0 reachable, 1 not, 2 other path than predicted, 3 unexplained, 4 not enough known."""
        return _EXIT_CODES.get(self, 1)


REFUSED = {
    "no-route": Disposition.NO_ROUTE,
    "blackhole": Disposition.NULL_ROUTED,
    "unreachable": Disposition.ROUTE_UNREACHABLE,
    "prohibit": Disposition.ROUTE_UNREACHABLE,
    "rpf": Disposition.RPF_FAILED,
    "own-source": Disposition.RPF_FAILED,
    "martian": Disposition.RPF_FAILED,
    "forwarding-off": Disposition.FORWARDING_OFF,
}
"""How a trace ends, by the code of a refusal."""


_EXIT_CODES = {
    Disposition.DELIVERED_AND_ANSWERED: 0,
    Disposition.MISMATCH: 2,
    Disposition.UNEXPLAINED: 3,
    Disposition.MODEL_DISAGREES: 3,
    Disposition.INSUFFICIENT_INFO: 4,
}


class Direction(StrEnum):
    """There, or back."""

    FORWARD = "forward"
    RETURN = "return"


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A place: node, namespace, link; None where it does not apply."""

    node: str | None = None
    netns: str | None = None
    interface: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing the kernel does at a place, with the state that makes it do so."""

    component: str
    """ARP, Policy, NAT, Routing, RPF, Forwarding, Tunnel, MTU, Link, Socket."""
    action: str
    """RECEIVED, FORWARDED, PERMITTED, DENIED, REJECTED, TRANSLATED, ENCAPSULATED, DECAPSULATED,
    DELIVERED, DROPPED."""
    text: str
    """For people: what decided, in the words of `ip`."""
    detail: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    by: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


class Result(StrEnum):
    """What an observation says of a predicted place, or of one that nobody predicted."""

    MATCH = "match"
    MISSING = "missing"
    EXTRA = "extra"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A packet as it was really seen at a place."""

    packet: Packet | None
    packet_type: str
    """host, otherhost, outgoing …: what the kernel told the tap."""
    timestamp_ns: int
    """Wall clock, nanoseconds since 1970."""
    since_ns: int
    """Since the probe was first seen anywhere."""
    count: int
    """How many of the probes were seen here."""
    differences: tuple[str, ...] = ()
    """What is not as predicted: `ttl 63, not 62`."""
    source: str = "af_packet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """A rule, a return or a chain's policy that the kernel says the packet met."""

    family: str
    table: str
    chain: str
    handle: int | None
    """None of a policy."""
    kind: str
    """rule, return, policy."""
    verdict: str
    target: str | None = None
    """Where a jump or goto leads."""
    count: int = 1
    """Packets."""

    @property
    def place(self) -> str:
        """`ip filter FORWARD (rule handle 6)`."""
        what = self.kind if self.handle is None else f"{self.kind} handle {self.handle}"
        return f"{self.family} {self.table} {self.chain} ({what})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A drop that ended the packet after it was seen at a place."""

    reason: str
    """As the kernel names it: IP_RPFILTER, NETFILTER_DROP …"""
    function: str
    """Of the kernel."""
    count: int = 1
    """Probes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """The packet at one link of one namespace, and what is decided there."""

    inode: int
    where: Where
    side: str
    """in or out."""
    packet: Packet
    steps: tuple[Step, ...] = ()
    position: str | None = None
    """P1 … P8 on the way there, R1 … R8 on the way back; None at other places."""
    role: str = "link"
    """link, port (of a bridge), tunnel."""
    mtu: int | None = None
    """MTU of the link."""
    result: Result | None = None
    """None: not observed, or a branch that this flow does not take."""
    observed: Observed | None = None
    ruled: tuple[Ruled, ...] = ()
    """In the order in which they were met; only of a trace with `--deep`."""
    dropped: tuple[Dropped, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a walk ended where it did; `code` picks the fault that explains it."""

    code: str
    where: Where
    inode: int
    text: str
    """The kernel's reason in one sentence."""
    facts: Mapping[str, str] = field(default_factory=_nothing)
    icmp: str | None = None
    """Type/code of the error the kernel sends back; None: none."""
    reset: bool = False
    """It answers with a TCP reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """An input that was missing and would have decided."""

    what: str
    why: str
    decides: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One ARP question on the way."""

    asker: str
    target: IPAddress
    replier: str | None
    mac: str | None
    kind: str
    """proxy, own or none."""
    predicted: str
    """What the neighbour table and the segment say, in words."""
    delay_ms: int | None = None
    observed: str | None = None
    """What was seen of it, in words; None: nothing was watched, or nobody asked."""
    took_ns: int | None = None
    """From the question to its answer, as seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One question to a FIB on the way, so that the kernel itself can be asked it, too."""

    inode: int
    hop: int
    """Index of the hop at which it is asked."""
    query: Query
    iif: int | None
    """Index of the link the packet came in by; None: it is made here."""
    answer: Decision | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way through the network, in one direction."""

    direction: Direction
    branch: int
    disposition: Disposition
    hops: tuple[Hop, ...]
    cause: Cause | None = None
    gap: Gap | None = None
    questions: tuple[Question, ...] = ()
    remarks: tuple[Cause, ...] = ()
    """What works and yet deserves a word: a late proxy answer, fragments …"""
    reached: int | None = None
    """Inode of the namespace that took the packet; None when none did."""
    arrived: Packet | None = None
    """The packet as its receiver got it."""
    lookups: tuple[Lookup, ...] = ()
    """What the FIBs were asked, in order."""
    heard: tuple[tuple[tuple[int, int, str], int], ...] = ()
    """What bridges have learnt from it: see `segment.Heard`."""
    lost: Packet | None = None
    """The packet as it was when it was dropped or refused."""
    lost_in: int | None = None
    """Inode of the namespace that had it then."""
    complaint: Path | None = None
    """The way of what is sent back about the loss: an ICMP error or a reset; None: nothing is."""
    sent: Packet | None = None
    """The packet as a program sends it; rules at output may translate it before its first link."""

    @property
    def made(self) -> Packet:
        """The packet before anything happened to it."""
        return self.hops[0].packet if self.sent is None else self.sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One piece of kernel state that supports a sentence."""

    kind: str
    """route, sysctl, neigh, fdb, link, rule, address, socket."""
    key: str
    value: str | None
    expected: str | None = None
    ns: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """What would help."""

    text: str
    command: str | None = None
    """For a shell in the namespace of the fault's place."""
    agent: bool = False
    """The agent of that node writes it, and does so again once it is neither held nor stopped."""
    verified_by: str | None = None
    """`counterproof`: with the command applied to the states, the prediction is good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A named cause with its place and the state that shows it."""

    id: str
    number: int | None
    """Row of the fault catalogue, when it is a listed one."""
    where: Where
    sentence: str
    evidence: tuple[Evidence, ...] = ()
    fix: Fix | None = None
    severity: str = "error"
    """error, or warning when packets pass all the same."""
    confidence: str = "likely"
    """certain: predicted and observed at the same place; likely; possible."""
    after: str | None = None
    """Id of the fault that hides it: it shows when that one is mended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndView:
    """One end of the flow as it was resolved."""

    kind: str
    """pod, node, netns, address."""
    title: str
    ip: IPAddress | None
    namespace: str | None = None
    pod: str | None = None
    node: str | None = None
    netns: str | None = None
    interface: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """What was sent and watched."""

    cookie: str
    """Hexadecimal; the first six bytes of what every probe carries."""
    sent: int
    answered: int
    steadiness: str
    """steady, first-packet, or k-of-n."""
    taps: int
    """Namespaces that were watched on all their links."""
    start_ns: int
    end_ns: int
    refused: int = 0
    """Probes that the receiver answered with a refusal."""
    rtt_ns: int | None = None
    """Shortest time from a probe's first sighting to its answer's last one."""
    changed: bool = False
    """The state of a namespace on the way changed while it was traced."""
    nft_trace: bool | None = None
    """Whether rules were traced on the whole way; None: nobody asked for it."""
    tracefs: bool | None = None
    """Whether reasons of drops were read."""


class ControlKind(StrEnum):
    """What a control probe is to the flow."""

    SMALL = "small"
    """The same flow, in a small packet."""
    OTHER = "other-protocol"
    """Another protocol between the same ends."""
    NODES = "between-nodes"
    """A ping between the nodes of a wire."""
    TUNNEL = "tunnel-port"
    """A packet to the port of the tunnel, between the nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One more packet, sent after a loss to cut it in two, and what became of it."""

    kind: ControlKind
    source: IPAddress
    destination: IPAddress
    flow: Flow
    answered: bool
    arrived: bool | None = None
    """Whether it came in at its receiver's link; None: nobody watched there."""
    refused: str | None = None
    """Why the sender's own kernel did not send it."""

    @property
    def title(self) -> str:
        """`icmp 10.0.0.1 → 10.0.0.2, 84 bytes`."""
        return f"{self.flow.title} {self.source} → {self.destination}, {self.flow.length} bytes"

    @property
    def outcome(self) -> str:
        """In a word or two."""
        if self.refused is not None:
            return f"not sent: {self.refused}"
        if self.answered:
            return "answered"
        if self.arrived is None:
            return "not answered"
        return "arrived, not answered" if self.arrived else "did not arrive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The whole answer."""

    flow: Flow
    source: EndView
    destination: EndView
    disposition: Disposition
    summary: str
    confidence: str
    faults: tuple[Fault, ...]
    paths: tuple[Path, ...]
    gaps: tuple[Gap, ...]
    path_mtu: int | None = None
    """Largest packet that passes there without being cut; None when the walk did not arrive."""
    probing: Probing | None = None
    """None: nothing was sent."""
    controls: tuple[Control, ...] = ()
    """What else was sent, after a loss that was not certain."""
    mode: str = "live"
    """live, or offline (from a bundle)."""
    bundle: str | None = None
    """File with the states, written when nothing explains the loss."""
