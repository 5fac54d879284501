"""What each node's agent says of itself in the datastore, every 30 s, as Felix does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

STALE_AFTER = timedelta(seconds=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One report."""

    time: datetime
    """When it was written (UTC)."""
    uptime_s: float
    """How long the agent had run by then."""
    ready: bool | None = None
    """Whether pods could be attached by then; Calico's agents and older ones do not say."""
    reasons: tuple[str, ...] = ()
    """Why they could not."""

    def is_stale(self, now: datetime) -> bool:
        """Whether the next reports are missing: the agent, or the way to the datastore, is gone."""
        return now - self.time > STALE_AFTER


def parse_status(wire: object) -> NodeStatus | None:
    """Read a report; None when it is none that we understand."""
    match wire:
        case {"time": str() as text, **rest}:
            uptime = rest.get("uptime")
            try:
                time = datetime.fromisoformat(text)
            except ValueError:
                return None
            own = rest.get("podwire")
            own = own if isinstance(own, dict) else {}
            ready, reasons = own.get("ready"), own.get("reasons")
            return NodeStatus(
                time=time if time.tzinfo is not None else time.replace(tzinfo=UTC),
                uptime_s=float(uptime) if isinstance(uptime, int | float) else 0.0,
                ready=ready if isinstance(ready, bool) else None,
                reasons=tuple(map(str, reasons)) if isinstance(reasons, list) else (),
            )
        case _:
            return None
