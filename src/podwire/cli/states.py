"""Where the kernel states come from that a command looks at: this host, other nodes, a bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from podwire.drivers.transport import WAYS, Way, parse_way
from podwire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.model.kernelstate import KernelState

P = ParamSpec("P")
T = TypeVar("T")

_CHOSEN = "podwire.sources"


@dataclass(slots=True, kw_only=True)
class Sources:
    """What the user chose to look at; nothing: this host."""

    bundle: Path | None = None
    nodes: dict[str, Way] = field(default_factory=dict)

    def read(self) -> tuple[KernelState, ...]:
        """The states; of nodes, progress goes to standard error.

        Raises:
            BadInput: the bundle is damaged or none, or both a bundle and nodes were given.
        """
        if self.bundle is not None:
            if self.nodes:
                raise BadInput("--from and --node contradict each other", fix="choose one of them")
            from podwire.drivers.bundle import read_bundle

            return read_bundle(self.bundle).states
        if self.nodes:
            from podwire.drivers.remote_collect import collect_nodes

            return collect_nodes(self.nodes, said=lambda text: click.echo(text, err=True))
        from podwire.drivers.collect import collect_all

        return collect_all()


def chosen_sources(ctx: click.Context) -> Sources:
    """What the options of `bundle_option` and `node_options` said."""
    found: Sources = ctx.meta.setdefault(_CHOSEN, Sources())
    return found


def bundle_option(command: Callable[P, T]) -> Callable[P, T]:
    """`--from BUNDLE`."""

    def remember(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
        chosen_sources(ctx).bundle = path

    return click.option(
        "--from",
        "bundle",
        type=click.Path(path_type=Path),
        metavar="BUNDLE",
        expose_value=False,
        callback=remember,
        help="Look at what `podwire collect` saved, offline.",
    )(command)


def node_options(command: Callable[P, T]) -> Callable[P, T]:
    """`--node NAME=WAY` and `--nodes FILE`."""

    def remember_nodes(ctx: click.Context, _: click.Parameter, texts: tuple[str, ...]) -> None:
        for text in texts:
            name, separator, way = text.partition("=")
            if not separator or not name:
                raise BadInput(f"--node {text!r} has no name", fix="write NAME=ssh:HOST")
            _add(chosen_sources(ctx), name, way, "--node")

    def remember_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
        if path is not None:
            for name, way in _inventory(path).items():
                _add(chosen_sources(ctx), name, way, str(path))

    file_option = click.option(
        "--nodes",
        "inventory",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=remember_file,
        help="Read nodes from a YAML file of lines NAME: WAY.",
    )
    node_option = click.option(
        "--node",
        multiple=True,
        metavar="NAME=WAY",
        expose_value=False,
        callback=remember_nodes,
        help=f"Look at this node instead of this host; WAY is {WAYS}. Repeatable.",
    )
    return node_option(file_option(command))


def _add(sources: Sources, name: str, way: str, place: str) -> None:
    if name in sources.nodes:
        raise BadInput(f"{place}: node {name} is given twice", fix="give it once")
    sources.nodes[name] = parse_way(way)


def _inventory(path: Path) -> Mapping[str, str]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no YAML: {error}") from None
    if not isinstance(found, dict) or not all(
        isinstance(each, str) for pair in found.items() for each in pair
    ):
        raise BadInput(
            f"{path} is no list of nodes", fix="write one line `NAME: ssh:HOST` for each"
        )
    return found
