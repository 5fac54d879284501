"""FelixConfiguration: what of Calico's settings for its agent counts for ours, too."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from podwire.model.addressing import parse_interface
from podwire.model.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPNetwork
    from podwire.model.resource import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class FelixSettings:
    """One object's settings; None: it does not say."""

    source_spoofing: bool | None = None
    """Whether pods may send from the prefixes their WorkloadEndpoint allows besides."""
    vxlan_from_pods: bool | None = None
    """Whether pods may send VXLAN to nodes."""
    ipip_from_pods: bool | None = None
    external_nodes: tuple[IPNetwork, ...] | None = None
    """From where tunnels are accepted besides the nodes of the datastore."""


def decode_felix(key: str, wire: Wire) -> FelixSettings:
    """Read a FelixConfiguration.

    Raises:
        BadInput: a field we look at is wrong.
    """
    spec = Fields(wire, key).within("spec")

    def flag(name: str) -> bool | None:
        return None if spec.wire.get(name) is None else spec.boolean(name)

    spoofing = spec.maybe_text("workloadSourceSpoofing")
    if spoofing is not None and spoofing.lower() not in {"any", "disabled"}:
        raise spec.bad("workloadSourceSpoofing", f"{spoofing!r} is neither Any nor Disabled")
    listed = spec.wire.get("externalNodesList")
    external = tuple(
        spec.parse(f"externalNodesList[{n}]", text, parse_interface).network
        for n, text in enumerate(spec.texts("externalNodesList"))
    )
    return FelixSettings(
        source_spoofing=None if spoofing is None else spoofing.lower() == "any",
        vxlan_from_pods=flag("allowVXLANPacketsFromWorkloads"),
        ipip_from_pods=flag("allowIPIPPacketsFromWorkloads"),
        external_nodes=None if listed is None else external,
    )


def settings_for(node: str, known: Mapping[str, FelixSettings]) -> FelixSettings:
    """What counts on a node: its own object field by field, else `default`."""
    own = known.get(f"node.{node}", FelixSettings())
    default = known.get("default", FelixSettings())
    chosen = {
        each.name: getattr(default if getattr(own, each.name) is None else own, each.name)
        for each in fields(FelixSettings)
    }
    return FelixSettings(**chosen)
