"""`podwire lab`: several nodes on this machine, to try, test and learn."""

from __future__ import annotations

import click

from podwire.cli.lazygroup import LazyGroup

COMMANDS = {
    "up": ("podwire.cli.lab_up", "Make a lab and start it."),
    "down": ("podwire.cli.lab_up", "End a lab; nothing of it is left."),
    "list": ("podwire.cli.lab_up", "The labs that run."),
    "status": ("podwire.cli.lab_status", "Nodes, blocks and agents."),
    "apply": ("podwire.cli.lab_pods", "Create pods from a manifest (Pod, Deployment)."),
    "delete": ("podwire.cli.lab_pods", "Delete pods or deployments."),
    "scale": ("podwire.cli.lab_pods", "Change the number of a deployment's pods."),
    "pods": ("podwire.cli.lab_pods", "List pods."),
    "exec": ("podwire.cli.lab_exec", "Run a command in a pod."),
    "node": ("podwire.cli.lab_exec", "Run a command on a node."),
    "hold": ("podwire.cli.lab_agent", "Stop all changes by a node's agent; nothing is withdrawn."),
    "release": ("podwire.cli.lab_agent", "Let a held agent go on."),
    "agent": ("podwire.cli.lab_agent", "Stop or start a node's agent."),
    "bird": ("podwire.cli.lab_agent", "Stop or start a node's BIRD."),
    "fault": ("podwire.cli.lab_fault", "Break a lab in known ways, and heal it."),
    "trace": ("podwire.cli.lab_trace", "The way of a packet, hop by hop."),
    "collect": ("podwire.cli.lab_collect", "Save the network state of the whole lab."),
    "demo": ("podwire.cli.lab_demo", "Show it all in half a minute."),
}
"""Name → module that holds a click command `<name>_command`, and help; as one first uses them."""


class LabGroup(LazyGroup):
    """The table above: making a lab needs much, asking for help little."""

    table = COMMANDS
    suffix = "_command"


@click.group(cls=LabGroup)
def lab() -> None:
    """Several nodes on this machine, to try, test and learn.

    A lab is one private world of network namespaces, made without root where the system allows it.
    Start with `podwire lab up`, or let `podwire lab demo` show you around.
    """
