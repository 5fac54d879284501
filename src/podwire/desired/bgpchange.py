"""Whether a new configuration of BIRD ends sessions with other nodes. Pure, over the two texts.

BIRD keeps a session whose options stay as they are, and begins it anew when one differs. Meanwhile
the routes learnt over it are gone on both sides, and somebody must stand in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.desired.bgptext import NODE_NOTE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_SESSION = "protocol bgp "
_TEMPLATE = "template bgp "
_SHARED = ("router id ", _TEMPLATE)
_NO_OPTION = ("  description ", "  # BGPFilter ", "  # secret ")
"""Lines that may change under a living session."""
_CHANNEL = "  ipv4 {"
"""From here on: what routes pass, which BIRD changes without a word to the peer's session."""


def interrupts(before: str, after: str, nodes: Collection[str]) -> bool:
    """Whether routes of nodes that are still there go for a while when `after` replaces `before`.

    `nodes`: all that have a Node object. Sessions with other routers are not counted: nobody could
    stand in for those.
    """
    old, new = dict(_sessions(before)), dict(_sessions(after))
    for name, options in old.items():
        node = _node_of(options)
        if node is None or node not in nodes:
            continue
        if new.get(name) != options:
            return True
    return False


def _sessions(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """BIRD's name of each session, and everything that it begins anew for."""
    shared: list[str] = []
    name: str | None = None
    options: list[str] = []
    in_template = in_channel = False
    for line in text.splitlines():
        if line.startswith(_SESSION):
            name, options, in_channel = line.split()[2], [], False
        elif line == "}":
            if name is not None:
                yield name, (*shared, *options)
            name, in_template = None, False
        elif line.startswith(_SHARED) or in_template:
            in_template = in_template or line.startswith(_TEMPLATE)
            shared.append(line)
        elif name is not None:
            in_channel = in_channel or line == _CHANNEL
            if not in_channel and not line.startswith(_NO_OPTION):
                options.append(line)


def _node_of(options: tuple[str, ...]) -> str | None:
    for line in options:
        if line.startswith(NODE_NOTE):
            return line.removeprefix(NODE_NOTE).partition(",")[0]
    return None
