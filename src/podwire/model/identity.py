"""Identity: which agent it is that serves a node's name, and whether it is an earlier run of ours.

Names are given by people and by images, so two machines may have one. Boot and network namespace
tell two agents apart for certain. The machine's ID alone does not: a copied machine has it, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from podwire.model.resource import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One run of an agent."""

    machine: str
    """What stays when the machine is booted again; empty where nothing tells it."""
    boot: str
    """The number of its boot: no two machines, and no two boots of one, have the same."""
    netns: int
    """The inode of its network namespace: no two that live in one boot have the same."""
    process: str
    """Its process as its PID namespace knows it, for `is_running`."""
    started: int
    """When the process was started, in the kernel's ticks since the boot."""
    since: str
    """The same by the wall clock (UTC, to the second)."""
    address: str | None = None
    """The node's address, once it is known."""

    def is_earlier(
        self, later: Identity, *, is_running: Callable[[str], bool], has_address: Callable[[], bool]
    ) -> bool:
        """Whether `later` goes on where this one has ended, at once and without asking.

        Args:
            later: whoever asks.
            is_running: whether a process of the asker's PID namespace still runs.
            has_address: whether the asker's namespace has this one's address.
        """
        if self.boot == later.boot:
            # Of two that cannot see each other's process the later one stays: never both.
            here = self.netns == later.netns and self.started <= later.started
            return here and not is_running(self.process)
        # The same machine after a boot. A copy of it that runs beside it has another address.
        booted = bool(self.machine) and self.machine == later.machine and self.since <= later.since
        return booted and has_address()

    def is_same(self, other: Identity) -> bool:
        """Whether both are the very same run."""
        return replace(self, address=None) == replace(other, address=None)

    def __str__(self) -> str:
        place = f"boot {self.boot}, network namespace {self.netns}"
        if self.address is not None:
            return f"{self.address} ({place})"
        return place

    def as_json(self) -> dict[str, JSON]:
        """As it stands in the node's report."""
        return {
            "machine": self.machine,
            "boot": self.boot,
            "netns": self.netns,
            "process": self.process,
            "started": self.started,
            "since": self.since,
            "address": self.address,
        }

    @classmethod
    def parse(cls, wire: Mapping[str, object]) -> Self | None:
        """Read it; None when it is none."""
        match wire:
            case {
                "machine": str() as machine,
                "boot": str() as boot,
                "netns": int() as netns,
                "process": str() as process,
                "started": int() as started,
                "since": str() as since,
            }:
                address = wire.get("address")
                return cls(
                    machine=machine,
                    boot=boot,
                    netns=netns,
                    process=process,
                    started=started,
                    since=since,
                    address=address if isinstance(address, str) else None,
                )
            case _:
                return None
