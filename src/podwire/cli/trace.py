"""`podwire trace`: the way of a packet, there and back, by the kernels' own state."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from podwire.cli.states import bundle_option, read_states
from podwire.errors import BadInput, PodwireError
from podwire.trace.flow import Flow, Protocol

if TYPE_CHECKING:
    from pathlib import Path

USAGE_ERROR = 64
OWN_FAILURE = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """What the caller asked for besides the two ends."""

    flow: Flow = field(default_factory=Flow)
    output: str | None = None
    """json, or None for the terminal report."""
    quiet: bool = False
    verbose: bool = False
    ascii: bool = False
    bundle: Path | None = None
    """Predict from this bundle, or from its folder, and not from this host."""


def run_trace(source: str, destination: str, options: TraceOptions) -> int:
    """Read this host's namespaces or a bundle, predict, print; the exit code says the disposition.

    0 delivered and answered, 1 not, 3 unexplained, 4 not enough known, 64 unknown end, 70 failure
    of ours.
    """
    from podwire.cli.main import complain
    from podwire.trace.predict import predict

    try:
        trace = predict(read_states(options.bundle), source, destination, options.flow)
    except BadInput as error:
        complain(error)
        return USAGE_ERROR
    except PodwireError as error:
        complain(error)
        return OWN_FAILURE
    if options.output == "json":
        from podwire.trace.document import document

        click.echo(json.dumps(document(trace), indent=2))
        return trace.disposition.exit_code
    from podwire.trace.report import Style, render

    style = Style(
        color=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
        ascii=options.ascii,
        verbose=options.verbose,
        quiet=options.quiet,
    )
    click.echo(render(trace, style), nl=False, color=True)
    return trace.disposition.exit_code


def build_flow(*, tcp: int | None, udp: int | None, icmp: bool, size: int | None, df: bool) -> Flow:
    """The flow that the options describe.

    Raises:
        click.UsageError: they contradict each other.
    """
    if sum((icmp, tcp is not None, udp is not None)) > 1:
        raise click.UsageError("choose one of --icmp, --tcp and --udp")
    protocol = (
        Protocol.TCP if tcp is not None else Protocol.UDP if udp is not None else Protocol.ICMP
    )
    return Flow(protocol=protocol, port=tcp if tcp is not None else udp, size=size, df=df)


PORT = click.IntRange(1, 65535)


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("--icmp", is_flag=True, help="Ping (the default).")
@click.option("--tcp", type=PORT, metavar="PORT", help="A TCP connection to this port.")
@click.option("--udp", type=PORT, metavar="PORT", help="A UDP packet to this port.")
@click.option(
    "--size", type=click.IntRange(28, 65535), metavar="N", help="Bytes of the IP packet, all told."
)
@click.option("--df", is_flag=True, help="Forbid fragmentation.")
@bundle_option
@click.option("-o", "--output", type=click.Choice(["json"]), help="Print JSON (podwire.trace/v1).")
@click.option("-q", "--quiet", is_flag=True, help="Print the verdict only.")
@click.option("-v", "--verbose", is_flag=True, help="Print every step at every place.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Print no character outside of ASCII.")
@click.pass_context
def trace(  # noqa: PLR0913  # one parameter for every option
    ctx: click.Context,
    *,
    source: str,
    destination: str,
    icmp: bool,
    tcp: int | None,
    udp: int | None,
    size: int | None,
    df: bool,
    bundle: Path | None,
    output: str | None,
    quiet: bool,
    verbose: bool,
    ascii_only: bool,
) -> None:
    """Say how a packet goes from SRC to DST and its answer back, and where and why it ends.

    SRC and DST are pods (NAMESPACE/NAME or NAME), nodes, network namespaces or addresses. Only the
    state of the kernels is read; nothing is sent.
    """
    options = TraceOptions(
        flow=build_flow(tcp=tcp, udp=udp, icmp=icmp, size=size, df=df),
        output=output,
        quiet=quiet,
        verbose=verbose,
        ascii=ascii_only,
        bundle=bundle,
    )
    ctx.exit(run_trace(source, destination, options))
