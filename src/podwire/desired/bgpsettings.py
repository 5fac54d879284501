"""BGPSettings: the cluster's BGP choices as they count for one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.desired.bgp import Advertisement
from podwire.errors import BadInput
from podwire.model.bgp import (
    BGP_PORT,
    DEFAULT_AS_NUMBER,
    DEFAULTS,
    BGPConfiguration,
    BindMode,
    LogSeverity,
)
from podwire.model.bgprulecodec import parse_community
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.bgp import ASNumber, Community, SecretKey

_NOTHING_SAID = BGPConfiguration(metadata=Metadata(name="default"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BGPSettings:
    """What counts for one node: its own BGPConfiguration over the default one over defaults."""

    mesh: bool = True
    as_number: ASNumber = DEFAULT_AS_NUMBER
    """Of nodes that name none themselves."""
    listen_port: int = BGP_PORT
    strict_bind: bool = False
    log_severity: LogSeverity = LogSeverity.INFO
    hold_s: int = DEFAULTS.hold_s
    keepalive_s: int = DEFAULTS.keepalive_s
    mesh_password: SecretKey | None = None
    mesh_restart_s: int = DEFAULTS.restart_s
    ignored_interfaces: tuple[str, ...] = ()
    advertisements: tuple[Advertisement, ...] = ()


def settings_of(node: str, configurations: Mapping[str, BGPConfiguration]) -> BGPSettings:
    """The settings of one node; what is the same on all nodes is read from `default` alone."""
    everywhere = configurations.get("default", _NOTHING_SAID)
    here = configurations.get(f"node.{node}", _NOTHING_SAID)
    hold = here.hold_s or everywhere.hold_s or DEFAULTS.hold_s
    keepalive = here.keepalive_s or everywhere.keepalive_s or max(1, hold // 3)
    return BGPSettings(
        mesh=everywhere.mesh is not False,
        as_number=everywhere.as_number or DEFAULT_AS_NUMBER,
        listen_port=here.listen_port or everywhere.listen_port or BGP_PORT,
        strict_bind=(here.bind_mode or everywhere.bind_mode) is BindMode.NODE_IP,
        log_severity=here.log_severity or everywhere.log_severity or LogSeverity.INFO,
        hold_s=hold,
        keepalive_s=keepalive,
        mesh_password=everywhere.mesh_password,
        mesh_restart_s=everywhere.mesh_restart_s or DEFAULTS.restart_s,
        ignored_interfaces=here.ignored_interfaces or everywhere.ignored_interfaces,
        advertisements=_advertisements(everywhere),
    )


def _advertisements(configuration: BGPConfiguration) -> tuple[Advertisement, ...]:
    values = {each.name: each.value for each in configuration.communities}
    return tuple(
        Advertisement(
            cidr=each.cidr,
            communities=tuple(
                value
                for text in each.communities
                if (value := values.get(text) or _community(text)) is not None
            ),
        )
        for each in configuration.prefix_advertisements
        if each.cidr.version == 4
    )


def _community(text: str) -> Community | None:
    """A community by value; a name that nobody explains says nothing."""
    try:
        return parse_community(text)
    except BadInput:
        return None
