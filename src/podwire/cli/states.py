"""Where the kernel states come from that a command looks at: this host, or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podwire.model.kernelstate import KernelState

bundle_option = click.option(
    "--from",
    "bundle",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Predict from what `podwire collect` saved, offline.",
)


def read_states(bundle: Path | None = None) -> tuple[KernelState, ...]:
    """The states in a bundle, or of every namespace this process can see.

    Raises:
        BadInput: the bundle is damaged or none.
    """
    if bundle is not None:
        from podwire.drivers.bundle import read_bundle

        return read_bundle(bundle).states
    from podwire.drivers.collect import collect_all

    return collect_all()
