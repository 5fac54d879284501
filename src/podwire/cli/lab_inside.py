"""What the commands of `podwire lab` have in common: which lab, and doing something inside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import click

from podwire.cli.completing import complete_lab
from podwire.lab.entry import run_inside
from podwire.lab.registry import get_keeper

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


def name_option(command: Callable[P, T]) -> Callable[P, T]:
    """`--name`: which lab."""
    return click.option(
        "--name",
        default="lab",
        show_default=True,
        metavar="NAME",
        shell_complete=complete_lab,
        help="Which lab.",
    )(command)


def namespace_option(command: Callable[P, T]) -> Callable[P, T]:
    """`-n`: which Kubernetes namespace."""
    return click.option(
        "-n",
        "--namespace",
        default="default",
        show_default=True,
        metavar="NS",
        help="Namespace of pods and deployments.",
    )(command)


def do_inside(name: str, function: Callable[[], int]) -> NoReturn:
    """Run a function in a child process inside the lab and end with the code it returns.

    Raises:
        NotFound: no such lab runs.
    """
    sys.exit(run_inside(get_keeper(name), function))
