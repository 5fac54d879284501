"""Case: what an explanation looks at, and the fault that says no more than the kernel does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.trace import intent
from podwire.trace.schema import Direction, Evidence, Fault, Fix

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.schema import Cause, Path, Where
    from podwire.trace.space import Space
    from podwire.trace.world import Pod, World


ONLY_FOR_SENTENCES = frozenset({"prefix", "table", "link", "target", "delay_ms", "family", "line"})
"""Facts of a cause that other evidence already says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One loss to be explained."""

    world: World
    path: Path
    cause: Cause
    destination: IPAddress | None
    """Of the flow, whichever direction the path has."""

    def without(self, *facts: str) -> Case:
        """The case without facts that are said in another way."""
        kept = {key: value for key, value in self.cause.facts.items() if key not in facts}
        return replace(self, cause=replace(self.cause, facts=kept))

    @property
    def space(self) -> Space:
        """The namespace that dropped the packet."""
        return self.world.spaces[self.cause.inode]

    @property
    def here(self) -> str:
        """Its name."""
        return self.cause.where.netns or self.space.title

    @property
    def interface(self) -> str:
        """The link it happened at."""
        return self.cause.where.interface or "?"

    @property
    def target(self) -> IPAddress:
        """Where the lost packet was going, tunnels taken off."""
        packet = self.path.hops[-1].packet
        while packet.inner is not None:
            packet = packet.inner
        return packet.destination

    @property
    def origin(self) -> IPAddress:
        """Where it came from, tunnels taken off."""
        packet = self.path.hops[-1].packet
        while packet.inner is not None:
            packet = packet.inner
        return packet.source

    @property
    def is_return(self) -> bool:
        """Whether it was the answer."""
        return self.path.direction is Direction.RETURN

    @property
    def pod_here(self) -> Pod | None:
        """The pod that lives where it happened."""
        return self.world.pod_in(self.space)

    def called(self, address: IPAddress) -> str:
        """`10.244.1.5 (demo/web-0 on vms103)`."""
        pod = intent.pod_of(self.world, address)
        if pod is None:
            owners = self.world.owners(address)
            return f"{address} ({owners[0].space.title})" if owners else str(address)
        node = self.world.node_of(pod.host.space)
        return f"{address} ({pod.title}{f' on {node}' if node else ''})"

    def fault(
        self,
        name: str,
        number: int | None,
        sentence: str,
        *,
        fix: Fix | None = None,
        evidence: tuple[Evidence, ...] = (),
        where: Where | None = None,
    ) -> Fault:
        """A fault at the case's place, with the walk's facts as evidence too."""
        facts = tuple(
            Evidence(kind=_kind(key), key=key, value=value, ns=self.here)
            for key, value in self.cause.facts.items()
            if key not in ONLY_FOR_SENTENCES
        )
        return Fault(
            id=name,
            number=number,
            where=where or self.cause.where,
            sentence=sentence,
            evidence=(*facts, *evidence),
            fix=fix,
        )


def warning(fault: Fault) -> Fault:
    """The fault as one that lets packets pass."""
    return replace(fault, severity="warning")


def plain(case: Case) -> Fault:
    """The kernel's reason as it is: for what no list has."""
    return case.fault(f"kernel.{case.cause.code}", None, case.cause.text)


def _kind(key: str) -> str:
    if key.startswith("net."):
        return "sysctl"
    if key.endswith("operstate"):
        return "link"
    kinds = {"route": "route", "route back": "route", "mac": "neigh", "address": "address",
             "ip rule": "rule"}  # fmt: skip
    return kinds.get(key, "rule" if key in {"handle", "chain", "table"} else "packet")
