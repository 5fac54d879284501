"""Reasons of drops: what the kernel says when it throws a packet buffer away, and where that was.

The events of the whole machine pass by, so the kernel filters them: drops of IPv4 and ARP only, and
links passed only by packets as long as probes, their answers, and both inside a tunnel. Everything
is read as text, because the names of the reasons differ from kernel to kernel.
Source: include/trace/events/{skb,net}.h.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from podwire.drivers.capture.tracefs import Instance, refused
from podwire.errors import Unsupported
from podwire.trace.deep import DROPPED, QUEUED, RECEIVED, BufferEvent
from podwire.trace.flow import Protocol

if TYPE_CHECKING:
    from podwire.trace.probe import Series

DROP = "skb/kfree_skb"
LINKS = {"net/net_dev_queue": QUEUED, "net/netif_receive_skb": RECEIVED}
TUNNEL_BYTES = 100
"""More than any tunnel and the Ethernet headers add."""
SMALLEST_ANSWER = {Protocol.TCP: 40, Protocol.UDP: 28}
"""Bytes of an answer that brings nothing of the probe back; echoes are as long as they came."""
_KINDS = {"kfree_skb": DROPPED, "net_dev_queue": QUEUED, "netif_receive_skb": RECEIVED}
_LINE = re.compile(r"\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (\w+): (.*)$")
_FIELD = re.compile(r"(\w+)[=:] ?(\S+)")
_LOST = re.compile(r"LOST \d+ EVENTS")


@dataclass(slots=True)
class DropReasons:
    """Drops heard of from now on; a context manager that leaves nothing behind."""

    _instance: Instance
    _offset_ns: int
    """From the clock of the events to the wall's."""
    lost: bool = False
    """Events came faster than there was room for."""
    _events: list[BufferEvent] = field(default_factory=list)

    @classmethod
    def open(cls, series: Series) -> DropReasons:
        """Begin to listen, for packets as long as those of a series.

        Raises:
            Forbidden: the caller may not trace the kernel.
            Unsupported: this kernel does not tell reasons.
        """
        instance = Instance.make()
        try:
            _arm(instance, series)
        except OSError as error:
            instance.close()
            raise refused(error) from None
        except BaseException:
            instance.close()
            raise
        return cls(instance, time.time_ns() - time.monotonic_ns())

    def read(self) -> tuple[BufferEvent, ...]:
        """What was told so far, in the order of time."""
        for line in self._instance.lines():
            self.lost = self.lost or _LOST.search(line) is not None
            event = parse(line, self._offset_ns)
            if event is not None:
                self._events.append(event)
        return tuple(sorted(self._events, key=lambda each: each.time_ns))

    def close(self) -> None:
        """Stop listening; safe to repeat."""
        self._instance.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _arm(instance: Instance, series: Series) -> None:
    if "reason" not in instance.read(f"events/{DROP}/format"):
        raise Unsupported("this kernel does not tell reasons of drops", fix="this needs Linux 5.17")
    instance.write("trace_clock", "mono")
    least = SMALLEST_ANSWER.get(series.protocol, series.length)
    most = series.length + TUNNEL_BYTES
    for event in LINKS:
        instance.write(f"events/{event}/filter", f"len >= {least} && len <= {most}")
    instance.write(f"events/{DROP}/filter", "protocol == 0x800 || protocol == 0x806")
    for event in (*LINKS, DROP):
        instance.write(f"events/{event}/enable", "1")


def parse(line: str, offset_ns: int) -> BufferEvent | None:
    """One line of the trace; None: it is no event that was asked for."""
    found = _LINE.search(line)
    if found is None or found[3] not in _KINDS:
        return None
    fields = dict(_FIELD.findall(found[4]))
    if "skbaddr" not in fields:
        return None
    length, protocol = fields.get("len"), fields.get("protocol")
    place = fields.get("location")
    return BufferEvent(
        kind=_KINDS[found[3]],
        time_ns=int(found[1]) * 1_000_000_000 + int(found[2]) * 1000 + offset_ns,
        buffer=fields["skbaddr"],
        device=fields.get("dev"),
        length=None if length is None else int(length),
        reason=fields.get("reason"),
        function=None if place is None else place.partition("+")[0],
        protocol=None if protocol is None else int(protocol),
    )
