"""`podwire node status`: the BGP sessions of this node, and why one is down."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podwire.agent.control import ask
from podwire.bgp.told import Told, parse_told
from podwire.cli.agent import config_option, read_settings
from podwire.cli.agent import render as render_agent
from podwire.cli.tables import columns, output
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.diagnosis import diagnose, why_no_bird
from podwire.drivers.bird.observe import BirdView, observe
from podwire.errors import AgentUnavailable, BirdAway, BirdSilent, Forbidden, NotFound
from podwire.model.node import Routing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.bgp.reason import Reason
    from podwire.bgp.state import Protocol
    from podwire.desired.bgp import BirdPeer
    from podwire.model.config import AgentConfig


@click.command("status")
@config_option
@click.option("-o", "--output", "format", type=click.Choice(["json", "yaml"]))
def status_command(config: Path | None, format: str | None) -> None:
    """Show this node's BGP sessions; ends with 1 when one is down, with the reason and its fix.

    Run it on the node, as root: it asks BIRD's control socket, and where BIRD cannot tell why, it
    tries the peer's port from here. Where the agents write the routes, it shows how this node's
    agent fares instead.

    \b
      podwire node status
    """  # noqa: D301  # click wants the character
    settings = read_settings(config)
    try:
        found = look(settings)
    except NotFound as error:
        _show_agent(settings, format, error)
        return
    shown = as_json(found, settings)
    click.echo(output(shown, format) if format else render(shown), nl=False)
    sys.exit(1 if found.down is not None or found.reasons else 0)


def _show_agent(settings: AgentConfig, format: str | None, speaks_no_bgp: NotFound) -> None:
    """What there is to say where BIRD has nothing to do."""
    try:
        agent = ask(settings.agent_socket, {"control": "status"})
    except AgentUnavailable as error:
        raise AgentUnavailable(f"{speaks_no_bgp.message}; {error.message}", fix=error.fix) from None
    if agent["routing"] != Routing.AGENT:
        raise speaks_no_bgp
    if format is not None:
        click.echo(
            output({"routing": agent["routing"], "peers": [], "agent": agent}, format), nl=False
        )
    else:
        click.echo("The agents write the routes to other nodes (routing: agent): no BGP is spoken.")
        click.echo(f"To have BGP: podwire bgp switch bird\n\n{render_agent(agent)}")
    sys.exit(0 if agent["ready"] else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What BIRD was told, what it says, and what is amiss."""

    told: Told
    view: BirdView | None
    reasons: Mapping[str, Reason]
    """By BIRD's name of the session."""
    down: Reason | None = None
    """Why BIRD says nothing."""


def look(settings: AgentConfig) -> NodeStatus:
    """Ask this node's BIRD.

    Raises:
        NotFound: the agent has never told BIRD anything.
        Forbidden: the caller may not read that.
    """
    told = read_told(Path(settings.bird_config))
    try:
        with Control.open(settings.bird_socket) as control:
            view = observe(control)
            reasons = diagnose(control, view, told.peers, told.passwords)
    except (BirdAway, BirdSilent) as error:
        return NodeStatus(told=told, view=None, reasons={}, down=why_no_bird(error))
    return NodeStatus(told=told, view=view, reasons=reasons)


def read_told(path: Path) -> Told:
    """The sessions in the file the agent wrote for BIRD.

    Raises:
        NotFound: there is no such file.
        Forbidden: it may not be read; it holds passwords.
    """
    try:
        return parse_told(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"this node speaks no BGP: the agent has written no {path}",
            fix="the cluster's routing has to be bird (podwire bgp switch bird), and the agent run",
        ) from None
    except PermissionError:
        raise Forbidden(f"{path} may not be read by this user", fix="run this as root") from None


def as_json(found: NodeStatus, settings: AgentConfig) -> dict[str, Any]:
    """The status as JSON."""
    sessions = {} if found.view is None else found.view.sessions
    daemon = None if found.view is None else found.view.daemon
    return {
        "bird": {
            "socket": settings.bird_socket,
            "version": None if daemon is None else str(daemon.version),
            "routerId": None if daemon is None else daemon.router_id,
            "started": None if daemon is None else daemon.started,
            "configured": None if daemon is None else daemon.configured,
            "message": None if daemon is None else daemon.message,
            "recovering": daemon is not None and daemon.recovering,
            "reason": _reason(found.down),
        },
        "peers": [
            _peer(peer, sessions.get(peer.protocol), found.reasons.get(peer.protocol))
            for peer in found.told.peers
        ],
    }


def _peer(peer: BirdPeer, protocol: Protocol | None, reason: Reason | None) -> dict[str, Any]:
    channels = () if protocol is None else protocol.channels
    return {
        "address": str(peer.address),
        "port": peer.port,
        "type": peer.type.value,
        "name": peer.name,
        "asNumber": peer.as_number,
        "localASNumber": peer.local_as,
        "protocol": peer.protocol,
        "state": None if protocol is None else protocol.state,
        "since": None if protocol is None else protocol.since,
        "info": None if protocol is None else protocol.info,
        "established": protocol is not None and protocol.established,
        "imported": sum(channel.imported for channel in channels),
        "filtered": sum(channel.filtered for channel in channels),
        "exported": sum(channel.exported for channel in channels),
        "reason": _reason(reason),
    }


def _reason(reason: Reason | None) -> dict[str, Any] | None:
    if reason is None:
        return None
    return {
        "why": reason.why.value,
        "sentence": reason.sentence,
        "fix": reason.fix,
        "evidence": list(reason.evidence),
    }


def render(shown: dict[str, Any]) -> str:
    """The status in lines for people, the table as calicoctl has it."""
    bird = shown["bird"]
    if bird["reason"] is not None:
        return _sentence("BIRD", bird["reason"])
    head = f"BIRD {bird['version']}, router id {bird['routerId']}: {bird['message']}\n"
    if bird["recovering"]:
        head += "It was started just now: it writes no routes before all peers have told theirs.\n"
    head += "\n"
    if not shown["peers"]:
        return head + "No IPv4 peers found.\n"
    rows = [
        (peer["address"], peer["type"], peer["state"], peer["since"], peer["info"])
        for peer in shown["peers"]
    ]
    header = ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"]
    reasons = [
        _sentence(f"{peer['address']} ({peer['name']})", peer["reason"])
        for peer in shown["peers"]
        if peer["reason"] is not None
    ]
    return head + columns(header, rows) + "".join(f"\n{each}" for each in reasons)


def _sentence(what: str, reason: dict[str, Any]) -> str:
    lines = [f"{what}: {reason['sentence']}"]
    lines += [f"  seen: {each}" for each in reason["evidence"]]
    if reason["fix"] is not None:
        lines.append(f"  fix: {reason['fix']}")
    return "\n".join(lines) + "\n"
