"""`podwire ipam check`, `release` and `configure`: finding and mending what went wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

import click

from podwire.cli.context import datastore_option, open_datastore
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.errors import BadInput, InUse, NotFound, Stale
from podwire.ipam.check import Problem, Trouble, check
from podwire.ipam.records import CALICO_DEFAULTS, Records
from podwire.ipam.request import Release
from podwire.ipam.service import IPAM
from podwire.model import codec, keys
from podwire.model.addressing import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Store
    from podwire.ipam.check import Report
    from podwire.model.block import IPAMConfig
    from podwire.model.endpoint import WorkloadEndpoint
    from podwire.model.resource import JSON

SCHEMA = "podwire.ipam.check.v1"
LONGEST_COOLDOWN_S = 1200
"""Calico's limit."""
TOP = 5
"""Nodes named by how many addresses they have."""


@click.command("check")
@click.option("-o", "--output", "report", type=click.File("w"), help="Also write a report (JSON).")
@click.option("--show-problem-ips", is_flag=True, help="Every address with a problem, not only 10.")
@datastore_option
@click.pass_context
def check_command(ctx: click.Context, report: TextIO | None, show_problem_ips: bool) -> None:
    """Find addresses that leaked, and records that contradict each other.

    The exit code is 1 when there are problems. A report is what `ipam release --from-report` takes.
    """
    found = check(open_datastore(ctx).list("/calico/").entries)
    click.echo(
        f"Looked at {found.blocks} blocks, {found.allocations} allocated addresses and"
        f" {found.endpoints} endpoints."
    )
    for node, count in list(found.by_node.items())[:TOP]:
        click.echo(f"  {node or '<no node>'} has {count} addresses")
    for trouble in Trouble:
        _show(
            trouble, [each for each in found.problems if each.trouble is trouble], show_problem_ips
        )
    if report is not None:
        json.dump(_report_json(found), report, indent=2)
        report.write("\n")
    count = len(found.problems)
    click.echo(f"Check complete; found {count} problem{'' if count == 1 else 's'}.")
    ctx.exit(1 if count else 0)


def _show(trouble: Trouble, problems: Sequence[Problem], everything: bool) -> None:
    if not problems:
        return
    click.echo(f"{trouble.value}: {len(problems)}")
    for problem in problems if everything else problems[:10]:
        click.echo(f"  {problem.sentence}")
    if not everything and len(problems) > 10:
        click.echo(f"  … and {len(problems) - 10} more: --show-problem-ips")
    for fix in dict.fromkeys(problem.fix for problem in problems[:10]):
        click.echo(f"  fix: {fix}")


def _report_json(report: Report) -> JSON:
    return {
        "schema": SCHEMA,
        "problems": [
            {
                "trouble": problem.trouble.value,
                "subject": problem.subject,
                "sentence": problem.sentence,
                "fix": problem.fix,
                "address": None if problem.address is None else str(problem.address),
                "handle": problem.handle,
                "sequence": problem.sequence,
            }
            for problem in report.problems
        ],
    }


@click.command()
@click.option("--ip", "addresses", multiple=True, metavar="ADDRESS", help="May be given often.")
@click.option("--from-report", "report", type=click.File(), help="What `ipam check -o` wrote.")
@click.option("--force", is_flag=True, help="With --ip: even though a pod uses the address.")
@datastore_option
@click.pass_context
def release(
    ctx: click.Context, addresses: tuple[str, ...], report: TextIO | None, force: bool
) -> None:
    """Give back addresses that nobody uses any more.

    From a report only what is still as it was is released: an address that was given to somebody
    else since is left alone. Handles without an address are deleted.
    """
    if bool(addresses) == (report is not None):
        raise BadInput("say what to release", fix="give either --ip ADDRESS or --from-report FILE")
    store = open_datastore(ctx)
    if report is not None:
        _release_report(store, report)
        return
    wanted = [parse_address(text, "--ip") for text in addresses]
    if not force:
        used = {p.ip: e.title for e in _endpoints(store) for p in e.addresses}
        for address in wanted:
            if address in used:
                raise InUse(f"{address} is used by pod {used[address]}", fix="delete the pod")
    told = _ipam(store).release_addresses([Release(address=address) for address in wanted])
    if told.absent:
        names = ", ".join(map(str, told.absent))
        raise NotFound(f"not allocated: {names}", fix="see podwire ipam show --ip ADDRESS")
    click.echo(f"Successfully released {', '.join(map(str, told.released))}")


def _release_report(store: Store, report: TextIO) -> None:
    try:
        told = json.load(report)
        if told["schema"] != SCHEMA:
            raise BadInput(
                f"{report.name}: schema {told['schema']!r} is unknown", fix=f"write {SCHEMA}"
            )
        problems = [each for each in told["problems"] if each["trouble"] == Trouble.LEAKED]
        leaked = [
            Release(
                address=parse_address(each["address"], report.name),
                handle=each["handle"],
                sequence=each["sequence"],
            )
            for each in problems
        ]
        handles = [
            each["handle"] for each in told["problems"] if each["trouble"] == Trouble.EMPTY_HANDLE
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{report.name}: is no report of ipam check: {error}", fix="podwire ipam check -o FILE"
        ) from None
    done = _ipam(store).release_addresses(leaked)
    click.echo(f"{len(done.released)} addresses released", nl=False)
    click.echo(f", {len(done.absent)} were free already" if done.absent else "", nl=False)
    click.echo(
        f", {len(done.foreign)} belong to somebody else by now" if done.foreign else "", nl=False
    )
    deleted = sum(_drop_handle(store, name) for name in handles)
    click.echo(f"; {deleted} empty handles deleted")


def _drop_handle(store: Store, name: str) -> bool:
    """Delete a handle, unless it has got an address since."""
    records = Records(store)
    there = records.handle(name)
    blocks = records.blocks()
    used = any(a.handle == name for each in blocks for a in each.value.allocations.values())
    if there is None or used:
        return False
    try:
        records.delete(there)
    except Stale:
        return False
    return True


@click.command()
@click.option("--strictaffinity", type=bool, help="Nodes use only addresses of their own blocks.")
@click.option("--max-blocks-per-host", type=click.IntRange(0, 1_000_000), help="0: 20.")
@click.option(
    "--ip-cooldown-seconds",
    type=click.IntRange(0, LONGEST_COOLDOWN_S),
    help="How long a released address rests.",
)
@datastore_option
@click.pass_context
def configure(
    ctx: click.Context,
    strictaffinity: bool | None,
    max_blocks_per_host: int | None,
    ip_cooldown_seconds: int | None,
) -> None:
    """Change how addresses are allocated in the whole cluster; without options show it."""
    store = open_datastore(ctx)
    entry = store.get(keys.IPAM_CONFIG_KEY)
    before = CALICO_DEFAULTS if entry is None else codec.decode_ipam_config(entry.key, entry.value)
    after = _configured(before, strictaffinity, max_blocks_per_host, ip_cooldown_seconds)
    if after != before:
        if entry is None:
            store.create(keys.IPAM_CONFIG_KEY, codec.encode(after))
        else:
            store.update(keys.IPAM_CONFIG_KEY, codec.encode(after), entry.revision)
        click.echo("Successfully changed the IPAM configuration", err=True)
    for name, value in (
        ("StrictAffinity", str(after.strict_affinity).lower()),
        ("AutoAllocateBlocks", str(after.auto_allocate_blocks).lower()),
        ("MaxBlocksPerHost", after.max_blocks_per_host),
        ("IPCooldownSeconds", after.cooldown_s),
    ):
        click.echo(f"{name:<20} {value}")


def _configured(
    before: IPAMConfig, strict: bool | None, most_blocks: int | None, cooldown_s: int | None
) -> IPAMConfig:
    after = replace(
        before,
        strict_affinity=before.strict_affinity if strict is None else strict,
        max_blocks_per_host=before.max_blocks_per_host if most_blocks is None else most_blocks,
        cooldown_s=before.cooldown_s if cooldown_s is None else cooldown_s,
    )
    if after.max_blocks_per_host and not after.strict_affinity:
        raise BadInput(
            "a block limit needs strict affinity: without it, addresses are borrowed beyond it",
            fix="add --strictaffinity=true, or --max-blocks-per-host=0",
        )
    if not after.strict_affinity and not after.auto_allocate_blocks:
        raise BadInput(
            "without strict affinity blocks have to be claimed automatically",
            fix="add --strictaffinity=true",
        )
    return after


def _ipam(store: Store) -> IPAM:
    return IPAM(store, "", SystemClock(), SystemDice(), node_labels={})


def _endpoints(store: Store) -> list[WorkloadEndpoint]:
    return [codec.decode_endpoint(e.key, e.value) for e in store.list(keys.ENDPOINTS).entries]
