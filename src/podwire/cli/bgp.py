"""`podwire bgp`: who writes the routes to other nodes' blocks, and which they are."""

from __future__ import annotations

import click

from podwire.cli.lazygroup import LazyGroup

COMMANDS = {
    "reflectors": ("podwire.cli.bgp_reflectors", "Route reflectors instead of a mesh."),
    "routes": ("podwire.cli.bgp_routes", "BIRD's routes beside the kernel's, and why they differ."),
    "switch": ("podwire.cli.bgp_switch", "Let the agents or BIRD write the routes, without a gap."),
}
"""Name → module that holds a click command `<name>_command`, and help."""


class BgpGroup(LazyGroup):
    """The table above."""

    table = COMMANDS
    suffix = "_command"


@click.group(cls=BgpGroup)
def bgp() -> None:
    """Routes by BGP: BIRD's routes, and who writes those to other nodes' blocks.

    \b
      podwire bgp routes
      podwire bgp switch bird
    """  # noqa: D301  # click wants the character
