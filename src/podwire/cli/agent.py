"""`podwire agent`: run this node's agent; ask, hold and release a running one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podwire.agent.control import ask
from podwire.drivers.config import load_agent_config, on_this_host, parse_seconds
from podwire.errors import BadInput
from podwire.model.config import DEFAULT_CONFIG
from podwire.model.shapes import check_name

if TYPE_CHECKING:
    from podwire.model.config import AgentConfig

CONFIG_VARIABLE = "PODWIRE_CONFIG"
SHOWN = 10
"""Pods named in one line; `-o json` names all."""

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The agent's configuration (or {CONFIG_VARIABLE}; {DEFAULT_CONFIG}).",
)
socket_option = click.option(
    "--socket", "socket_", metavar="PATH", help="The agent's socket, instead of a configuration."
)


@click.group(invoke_without_command=True)
@click.option("--node", metavar="NAME", help="Name of this node (or nodeName; the host's).")
@config_option
@click.pass_context
def agent(ctx: click.Context, node: str | None, config: Path | None) -> None:
    """Run this node's agent until it is told to end.

    It registers the node, repairs the pod network in this network namespace, and serves the CNI
    plugin on its socket. Ending it changes nothing: pods go on talking.

    \b
      podwire agent --node vms103 --config /etc/podwire/podwire.yaml
      podwire agent status
    """  # noqa: D301  # click wants the character
    ctx.obj = config
    if ctx.invoked_subcommand is not None:
        return
    if node is not None:
        check_node_option(node)
    from podwire.agent.app import run

    run(on_this_host(read_settings(config, node or ""), os.uname().nodename))


@agent.command()
@click.option("--for", "duration", metavar="TIME", help="End by itself after that time, like 60s.")
@config_option
@socket_option
@click.pass_context
def hold(
    ctx: click.Context, duration: str | None, config: Path | None, socket_: str | None
) -> None:
    """Stop all changes by the agent, in kernel and datastore; nothing is withdrawn.

    \b
      podwire agent hold --for 60s
    """  # noqa: D301  # click wants the character
    request: dict[str, Any] = {"control": "hold"}
    if duration is not None:
        seconds = parse_seconds(duration)
        if not seconds:
            raise BadInput(f"--for {duration!r} is not a time", fix="write it 60s or 5m")
        request["seconds"] = seconds
    answer = ask(socket_path(ctx, config, socket_), request)
    click.echo(f"node {answer['node']}: held{remaining(answer)}")


@agent.command()
@config_option
@socket_option
@click.pass_context
def release(ctx: click.Context, config: Path | None, socket_: str | None) -> None:
    """Let a held agent go on; what drifted meanwhile is repaired.

    \b
      podwire agent release
    """  # noqa: D301  # click wants the character
    answer = ask(socket_path(ctx, config, socket_), {"control": "release"})
    click.echo(f"node {answer['node']}: released")


@agent.command()
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")
@config_option
@socket_option
@click.pass_context
def status(ctx: click.Context, output: str, config: Path | None, socket_: str | None) -> None:
    """Show how the agent fares; ends with 1 when the node is not ready.

    \b
      podwire agent status -o json
    """  # noqa: D301  # click wants the character
    answer = ask(socket_path(ctx, config, socket_), {"control": "status"})
    click.echo(json.dumps(answer, indent=2) if output == "json" else render(answer))
    if not answer["ready"]:
        ctx.exit(1)


def render(answer: dict[str, Any]) -> str:
    """The status in lines for people."""
    state = "ready" if answer["ready"] else "not ready"
    counters = answer["counters"]
    lines = [
        f"node {answer['node']}: {state}{', held' + remaining(answer) if answer['held'] else ''}",
        f"process {answer['pid']}, socket {answer['socket']}, datastore {answer['datastore']}",
        f"endpoints {answer['endpoints']}, "
        + ", ".join(f"{table} {count}" for table, count in answer["tables"].items()),
        f"kernel: written {counters['writes']}, deleted {counters['deletes']}",
        f"datastore: written {counters['storeWrites']}",
    ]
    lines += mtu_lines(answer.get("mtu"))
    lines += bird_lines(answer.get("bird"))
    lines += leak_lines(answer["leaks"])
    lines.append(firewall_line(answer["firewall"]))
    lines += [f"not ready: {reason}" for reason in answer["reasons"]]
    lines += [f"concern: {concern}" for concern in answer["concerns"]]
    return "\n".join(lines)


def mtu_lines(mtu: dict[str, Any] | None) -> list[str]:
    """Which MTU is in use and why, and the pods that have another."""
    if mtu is None or mtu["cluster"] is None:
        return []
    whose = "" if mtu["narrowest"] is None else f" (node {mtu['narrowest']})"
    line = f"MTU: pods {mtu['pod']}, underlay {mtu['underlay']}, cluster {mtu['cluster']}{whose}"
    odd = [f"{pod} {size}" for pod, size in sorted(mtu["livePods"].items())]
    more = f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
    return [line, *([f"MTU of live pods: {', '.join(odd[:SHOWN])}{more}"] if odd else [])]


def bird_lines(bird: dict[str, Any] | None) -> list[str]:
    """How BIRD fares, in lines for people; none where it has nothing to do."""
    if bird is None:
        return []
    version = "does not answer" if bird["version"] is None else bird["version"]
    line = f"routing: BIRD {version}, {bird['established']} of {bird['sessions']} sessions up"
    return [line, *([] if bird["advice"] is None else [f"advice: {bird['advice']}"])]


def leak_lines(leaks: dict[str, Any]) -> list[str]:
    """Addresses in doubt and deleted nodes, in lines for people; none when all is well."""
    lines = []
    for each in leaks["suspected"]:
        rest = max(0.0, leaks["gracePeriod"] - each["suspectedFor"])
        addresses = ", ".join(each["addresses"]) or "no address"
        lines.append(
            f"leak suspected: {addresses} of {each['pod']} for {each['suspectedFor']:.0f} s"
            f" (released in {rest:.0f} s): {'; '.join(each['proof'])}"
        )
    for node, lost in leaks["lostNodes"].items():
        objects = lost["pods"] is not None
        objection = f"; its agent still has {lost['pods']} pods" if objects else ""
        lines.append(f"deleted node {node} left blocks, for {lost['for']:.0f} s{objection}")
    return lines


WORDS = {
    "natOutgoing": "NAT to the world",
    "spoofedSource": "spoofed source",
    "spoofedARP": "spoofed ARP",
    "podIntoTunnel": "pod into tunnel",
    "strangerIntoIPIP": "stranger into IPIP",
    "strangerIntoVXLAN": "stranger into VXLAN",
}


def firewall_line(firewall: dict[str, Any]) -> str:
    """What the rules counted, in packets; NAT only a connection's first."""
    counted = firewall["counters"]
    return "firewall: " + ", ".join(
        f"{words} {counted[name]['packets']}" for name, words in WORDS.items()
    )


def remaining(answer: dict[str, Any]) -> str:
    """When a hold ends, in words."""
    seconds = answer["heldFor"]
    return " until it is released" if seconds is None else f" for {seconds:.0f} s"


def check_node_option(node: str) -> None:
    """A name that no Node may have would be refused by everybody but us.

    Raises:
        BadInput: it is one.
    """
    try:
        check_name(node)
    except BadInput as error:
        raise BadInput(f"--node: {error.message}", fix=error.fix) from None


def config_path(config: Path | None) -> Path | None:
    """The configuration file to read; None where none is named and the default one is not there."""
    named = config or os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    default = Path(DEFAULT_CONFIG)
    return default if os.access(default, os.F_OK) else None


def read_settings(config: Path | None, node: str = "") -> AgentConfig:
    """The configuration of this machine's agent, of file and environment.

    Raises:
        BadInput: it is wrong.
    """
    return load_agent_config(config_path(config), node, os.environ)


def socket_path(ctx: click.Context, config: Path | None, socket_: str | None) -> str:
    """The socket of the agent that is meant."""
    if socket_:
        return socket_
    return read_settings(config or ctx.obj).agent_socket
