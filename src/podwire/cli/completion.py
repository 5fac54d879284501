"""`podwire completion`: the script by which a shell completes our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from podwire.cli.main import COMPLETION_VARIABLE

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what SHELL needs to complete commands, kinds and names of resources.

    \b
      source <(podwire completion bash)                          now, in this bash
      podwire completion bash > /etc/bash_completion.d/podwire   for everybody
      podwire completion zsh > "${fpath[1]}/_podwire"
      podwire completion fish > ~/.config/fish/completions/podwire.fish

    Names come from the datastore, quickly or not at all.
    """  # noqa: D301  # click wants the character
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """The script for one of SHELLS."""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    made = kind(click.Command("podwire"), {}, "podwire", COMPLETION_VARIABLE)
    # Not `source`: it would run a bash to look at its version, and complain where there is none.
    return made.source_template % made.source_vars()
