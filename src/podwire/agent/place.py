"""Place: where this node stands on the underlay, and what follows from its moving.

Its address, the device that carries it, the next hops towards other nodes where no single device
leads to them, and the MTU. Looked at anew whenever links, addresses or routes move; what is
expensive only when something it depends on did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from podwire.desired.detection import Tables, detect, on_device
from podwire.desired.here import Underlay, find_underlay, routed_mtu
from podwire.desired.mtu import narrowest
from podwire.desired.ways import devices_to, leaves_as, ways_to
from podwire.model.detection import Method
from podwire.model.link import INTERFACE_PREFIX, LARGEST_MTU

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podwire.agent.kernel import Kernel, Seen
    from podwire.agent.mirror import Mirror, Moved
    from podwire.model.addressing import IPAddress, IPInterface
    from podwire.model.config import AgentConfig
    from podwire.model.node import Node
    from podwire.model.route import NextHop

ADDRESS_GRACE_S = 0.1
"""How long the node's address must be away before another one counts. A DHCP client may take an
address away and put it back; to move a whole node for that would be a loss for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """What the kernel's routes say of the ways to other nodes."""

    ways: Mapping[IPAddress, tuple[NextHop, ...]]
    mtu: int
    misnamed: tuple[str, ...]
    """Nodes that hear from us under another address than the node's: IPIP has no say in it."""


class Place:
    """Owned by the loop's thread."""

    def __init__(self, config: AgentConfig, kernel: Kernel, mirror: Mirror) -> None:
        self._config = config
        self._kernel = kernel
        self._mirror = mirror
        self._away_since: float | None = None
        self._judged = False
        """Whether the grace period is over and was acted upon."""
        self._others: tuple[int, str | None] = (LARGEST_MTU, None)
        self._routed: Routed | None = None

    def look(self, seen: Seen, moved: Moved) -> None:
        """Take in what moved, before anything is asked."""
        if moved.nodes:
            self._look_at_mtus(moved.nodes)
        if moved.nodes or seen.addresses or seen.foreign_routes or _devices_moved(seen):
            self._routed = None

    def _look_at_mtus(self, moved: set[str]) -> None:
        """All nodes are asked again only when the narrowest may have become wider."""
        nodes = self._mirror.nodes
        if self.narrowest_other is None or self.narrowest_other in moved:
            self._others = narrowest(self._other_nodes())
            return
        others = (nodes[name] for name in moved if name in nodes and name != self._config.node)
        self._others = min(self._others, narrowest(others), key=lambda pair: pair[0])

    def concerns_address(self, seen: Seen) -> bool:
        """Whether the node may have another address or MTU now."""
        if seen.addresses or seen.default_route or _devices_moved(seen):
            return True
        by_routes = self._config.detection.method is Method.CAN_REACH
        return seen.foreign_routes and (by_routes or self._is_routed())

    # --- address --------------------------------------------------------------------------------

    def own_node(self) -> Node | None:
        """This node's own object."""
        return self._mirror.nodes.get(self._config.node)

    def own_address(self) -> IPInterface | None:
        """The address this node should be known by now; None while none can be found.

        As configured; else of the configured device; else as the configured method finds it. What
        the Node object says stays as long as the setting allows it.
        """
        config = self._config
        if config.address is not None:
            return config.address
        tables = Tables(
            links=self._kernel.by_index,
            addresses=tuple(self._kernel.addresses.values()),
            default_routes=self._kernel.default_routes(),
            routes=self._kernel.foreign_routes()
            if config.detection.method is Method.CAN_REACH
            else MappingProxyType({}),
        )
        known = self._known()
        if config.interface is not None:
            found = on_device(config.interface, tables)
            again = (each for each in found if known is not None and each.ip == known.ip)
            return next(again, found[0] if found else None)
        return detect(config.detection, tables, known)

    def why_none(self) -> str:
        """Why no address is found, and what to do."""
        config, fix = self._config, "set `address` or `interface` in the agent's configuration"
        if config.interface is not None:
            return f"interface {config.interface} has none; give it one, or name another interface"
        if config.detection.method is Method.DEFAULT_ROUTE:
            return f"there is no default route; {fix}"
        return f"addressDetection {config.detection.method} finds none; {fix}"

    def settled_address(self, now: float) -> IPInterface | None:
        """The same, once another one than the known has been asked for long enough."""
        found, known = self.own_address(), self._known()
        if known is None or found == known:
            self._away_since, self._judged = None, False
            return found
        if self._away_since is None:
            self._away_since = now
        self._judged = now >= self._away_since + ADDRESS_GRACE_S
        return found if self._judged else known

    def is_due(self, now: float) -> bool:
        """Whether the grace period of the known address has ended since it was asked for last."""
        waits = self.next_wait_s(now)
        return waits is not None and waits <= 0

    def next_wait_s(self, now: float) -> float | None:
        """Seconds until that period ends; None when none runs."""
        if self._away_since is None or self._judged:
            return None
        return max(0.0, self._away_since + ADDRESS_GRACE_S - now)

    def _known(self) -> IPInterface | None:
        node = self.own_node()
        return None if node is None else node.address

    # --- underlay -------------------------------------------------------------------------------

    def underlay(self, address: IPInterface | None) -> Underlay | None:
        """The device that carries an address of ours; None while none does."""
        if address is None:
            return None
        found = find_underlay(address.ip, self._kernel.addresses.values(), self._kernel.links)
        if found is None or not found.routed:
            return found
        return replace(found, mtu=self._look_at_routes().mtu)

    def ways(self, underlay: Underlay) -> Mapping[IPAddress, tuple[NextHop, ...]]:
        """Next hops towards every other node, where no single device leads to them."""
        return self._look_at_routes().ways if underlay.routed else MappingProxyType({})

    def misnamed(self, underlay: Underlay) -> tuple[str, ...]:
        """Nodes to which packets of this host leave under another address than the node's."""
        return self._look_at_routes().misnamed if underlay.routed else ()

    @property
    def others_mtu(self) -> int:
        """The smallest underlay MTU of all other nodes."""
        return self._others[0]

    @property
    def narrowest_other(self) -> str | None:
        """The node that has it."""
        return self._others[1]

    def _is_routed(self) -> bool:
        found = self.underlay(self._known())
        return found is not None and found.routed

    def _look_at_routes(self) -> Routed:
        if self._routed is None:
            kernel = self._kernel
            routes = kernel.foreign_routes()
            nodes = {n.name: n.address.ip for n in self._other_nodes() if n.address is not None}
            own, addresses = self._known(), kernel.addresses.values()
            leading = {
                hop.device for route in kernel.default_routes() for hop in route.hops if hop.device
            }
            self._routed = Routed(
                ways=MappingProxyType(
                    {ip: ways_to(ip, routes, kernel.by_index) for ip in nodes.values()}
                ),
                mtu=routed_mtu(leading | set(devices_to(nodes.values(), routes)), kernel.links),
                misnamed=tuple(
                    name
                    for name, ip in nodes.items()
                    if own is not None and not leaves_as(own.ip, ip, routes, addresses)
                ),
            )
        return self._routed

    def _other_nodes(self) -> Iterator[Node]:
        return (n for n in self._mirror.nodes.values() if n.name != self._config.node)


def _devices_moved(seen: Seen) -> bool:
    """Whether links other than those of pods came, changed or went."""
    return any(not name.startswith(INTERFACE_PREFIX) for name in seen.links)
