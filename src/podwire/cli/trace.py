"""`podwire trace`: the way of a packet, there and back, as it should be and as it is."""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from podwire.cli.states import Sources, bundle_option, chosen_sources, node_options
from podwire.errors import BadInput, PodwireError
from podwire.trace.flow import Flow, Protocol

if TYPE_CHECKING:
    from podwire.trace.schema import Trace

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
    sources: Sources = field(default_factory=Sources)
    """Whose state to look at: this host's, other nodes', or a bundle's."""
    probe: bool | None = None
    """True: send in any network; False: never send; None: send where the network is ours."""
    deep: bool = False
    cold_arp: bool = False
    minimal: bool = False
    lab: str | None = None
    """The lab in which it runs."""


def run_trace(source: str, destination: str, options: TraceOptions) -> int:
    """Trace on this host or in a bundle, and print; the exit code says the disposition.

    0 delivered and answered, 1 not, 2 not as predicted, 3 unexplained, 4 not enough known, 64
    unknown end, 70 failure of ours.
    """
    from podwire.cli.main import complain

    try:
        trace = find_trace(source, destination, options)
        show(trace, options)
    except BadInput as error:
        complain(error)
        return USAGE_ERROR
    except PodwireError as error:
        complain(error)
        return OWN_FAILURE
    except OSError:  # the reader of what we print has gone
        raise
    except Exception as error:  # noqa: BLE001  # 1 would say that the packet does not arrive
        complain(_mistake(error))
        return OWN_FAILURE
    return trace.disposition.exit_code


def _mistake(error: Exception) -> PodwireError:
    """A mistake of the program, as those who can mend it want to hear of it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return PodwireError(
        f"a mistake in podwire: {error!r} in {Path(place.filename).name}, line {place.lineno}",
        fix="report it, with what `podwire collect -o FILE` saves",
    )


def find_trace(source: str, destination: str, options: TraceOptions) -> Trace:
    """The answer as a value.

    Raises:
        BadInput: an end is unknown, the bundle is none, or the flow fits no packet.
    """
    sources = options.sources
    if sources.bundle is not None or sources.nodes:
        from podwire.trace.counterproof import Question, prove

        asked = Question(
            states=sources.read(),
            source=source,
            destination=destination,
            flow=options.flow,
        )
        mode = "live" if sources.bundle is None else "offline"
        trace = replace(prove(asked.predict(), asked), mode=mode)
        return _without_kernels(trace) if options.deep else trace
    from podwire.cli.trace_live import Wish, trace_live

    wish = Wish(
        source=source,
        destination=destination,
        flow=options.flow,
        probe=options.probe,
        deep=options.deep,
        cold_arp=options.cold_arp,
    )
    return trace_live(wish)


def _without_kernels(trace: Trace) -> Trace:
    from podwire.trace.schema import Gap

    why = "--deep listens to kernels of this host, while probes are sent; here none are"
    return replace(trace, gaps=(*trace.gaps, Gap(what="the kernel's own events", why=why)))


def show(trace: Trace, options: TraceOptions) -> None:
    """Print it in the form that was asked for."""
    if options.output == "json":
        from podwire.trace.document import document

        click.echo(json.dumps(document(trace), indent=2))
        return
    from podwire.trace.report import Style, render

    style = Style(
        color=sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
        ascii=options.ascii,
        verbose=options.verbose,
        quiet=options.quiet,
        minimal=options.minimal,
        lab=options.lab,
    )
    click.echo(render(trace, style), nl=False, color=True)


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


def refuse_contradictions(sources: Sources, *, predict: bool, **sending: bool) -> None:
    """Options that send, or listen to what is sent, beside others that send nothing.

    Raises:
        click.UsageError: they contradict each other.
    """
    silent = (
        "--predict" if predict
        else "--from" if sources.bundle is not None
        else "--node" if sources.nodes
        else None
    )  # fmt: skip
    wanted = [f"--{name.replace('_', '-')}" for name, given in sending.items() if given]
    if silent is not None and wanted:
        raise click.UsageError(f"{silent} sends nothing, and {wanted[0]} needs probes: choose one")


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
@click.option("--df", is_flag=True, help="Forbid that it is cut into fragments.")
@click.option("--predict", is_flag=True, help="Send nothing, only read.")
@click.option("--probe", is_flag=True, help="Send probes in a network that is not Podwire's, too.")
@click.option(
    "--cold-arp",
    is_flag=True,
    help="Forget learnt neighbours on the way, so that ARP is seen, too.",
)
@click.option(
    "--deep", is_flag=True, help="Have kernels tell which rules probes meet, and why one is lost."
)
@bundle_option
@node_options
@click.option("-o", "--output", type=click.Choice(["json"]), help="Print JSON (podwire.trace/v1).")
@click.option("-q", "--quiet", is_flag=True, help="Print the verdict only.")
@click.option("-v", "--verbose", is_flag=True, help="Print every step at every place.")
@click.option("--minimal", is_flag=True, help="Print a stable form for tests.")
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
    predict: bool,
    probe: bool,
    cold_arp: bool,
    deep: bool,
    output: str | None,
    quiet: bool,
    verbose: bool,
    minimal: bool,
    ascii_only: bool,
) -> None:
    """Say how a packet goes from SRC to DST and its answer back, and where and why it ends.

    SRC and DST are pods (NAMESPACE/NAME or NAME), nodes, network namespaces or addresses. The
    kernels' state says where the packet should go; in Podwire's own networks three probes show
    where it really goes. Where the two part, or both end, the cause is named with a fix.

    \b
    podwire trace demo/web-0 demo/db-0                     a ping, and its answer
    podwire trace demo/web-0 10.96.0.10 --udp 53           to an address of a service
    podwire trace demo/web-0 demo/db-0 --tcp 5432 --deep   which rules are met
    podwire trace demo/web-0 demo/db-0 --size 1500 --df    do large packets fit?
    podwire trace demo/web-0 demo/db-0 --from bundle.tgz   offline

    \b
    Exit code: 0 delivered and answered, 1 not, 2 not as predicted or not always,
    3 unexplained, or the kernel disagrees with the model, 4 not enough is known,
    64 wrong usage or an unknown end, 70 failure of the program.
    """  # noqa: D301  # click wants the character
    sources = chosen_sources(ctx)
    refuse_contradictions(sources, predict=predict, probe=probe, deep=deep, cold_arp=cold_arp)
    options = TraceOptions(
        flow=build_flow(tcp=tcp, udp=udp, icmp=icmp, size=size, df=df),
        output=output,
        quiet=quiet,
        verbose=verbose,
        minimal=minimal,
        ascii=ascii_only,
        sources=sources,
        probe=False if predict else True if probe else None,
        deep=deep,
        cold_arp=cold_arp,
        lab=ctx.obj if isinstance(ctx.obj, str) else None,
    )
    ctx.exit(run_trace(source, destination, options))
