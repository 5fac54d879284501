"""`podwire ipam check` and `release`: finding and mending what went wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TextIO

import click

from podwire.cli.context import datastore_option, open_datastore
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.errors import BadInput, InUse, NotFound
from podwire.ipam.check import check
from podwire.ipam.checkworld import KNOWN_TUNNELS, World
from podwire.ipam.leftovers import TUNNEL_TYPES, Farewell, objectors
from podwire.ipam.problem import REPAIR, Trouble
from podwire.ipam.records import Records
from podwire.ipam.repair import Repairs
from podwire.ipam.request import Release
from podwire.ipam.service import IPAM
from podwire.model import keys
from podwire.model.addressing import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Store
    from podwire.ipam.problem import Problem, Report
    from podwire.model.addressing import IPAddress
    from podwire.model.resource import JSON

    Identity = tuple[str, str, str | None, str | None, int | None]

SCHEMA = "podwire.ipam.check.v1"
TOP = 5
"""Nodes named by how many addresses they have."""
NAMED = 10
"""Problems of a kind that are spelt out, unless all are asked for."""
FIRST = (Trouble.BROKEN_BLOCK, Trouble.UNREADABLE)
"""Repaired before the others, which need to read them."""
USERS = (keys.NODES, keys.ENDPOINTS)
"""Below these stands who uses an address."""
LEAVE_IT = "leave it to the node's agent, or --force if that machine is no more"


@click.command("check")
@click.option("-o", "--output", "report", type=click.File("w"), help="Also write a report (JSON).")
@click.option("--show-all-ips", is_flag=True, help="Every address, and who uses it.")
@click.option("--show-problem-ips", is_flag=True, help="Every problem, not only 10 of a kind.")
@datastore_option
@click.pass_context
def check_command(
    ctx: click.Context, report: TextIO | None, show_all_ips: bool, show_problem_ips: bool
) -> None:
    """Find addresses that leaked, and records that contradict each other.

    The exit code is 1 when there are problems. A report is what `ipam release --from-report` takes.

    \b
      podwire ipam check -o report.json
    """  # noqa: D301  # click wants the character
    found = look(open_datastore(ctx))
    click.echo(
        f"Looked at {found.blocks} blocks, {found.allocations} allocated addresses and"
        f" {found.endpoints} endpoints."
    )
    for node, count in list(found.by_node.items())[:TOP]:
        click.echo(f"  {node or '<no node>'} has {count} addresses")
    if show_all_ips:
        for address, users in found.users.items():
            titles = " and ".join(user.title for user in users)
            click.echo(f"  {address} {f'is used by {titles}' if users else 'is used by nobody'}")
    for trouble in Trouble:
        _show(
            trouble, [each for each in found.problems if each.trouble is trouble], show_problem_ips
        )
    if report is not None:
        json.dump(_report_json(found), report, indent=2)
        report.write("\n")
    click.echo(f"Check complete; found {len(found.problems)} problems.")
    ctx.exit(1 if found.problems else 0)


def look(store: Store) -> Report:
    """Check everything, as it is now."""
    return check(store.list("/").entries, SystemClock().now())


def _show(trouble: Trouble, problems: Sequence[Problem], everything: bool) -> None:
    if not problems:
        return
    click.echo(f"{trouble.value}: {len(problems)}")
    shown = problems if everything else problems[:NAMED]
    for problem in shown:
        click.echo(f"  {problem.sentence}")
    if len(problems) > len(shown):
        click.echo(f"  … and {len(problems) - len(shown)} more: --show-problem-ips")
    for fix in dict.fromkeys(problem.fix for problem in shown):
        click.echo(f"  fix: {fix}")


def _report_json(report: Report) -> JSON:
    return {
        "schema": SCHEMA,
        "cluster": report.cluster,
        "problems": [
            {
                "trouble": problem.trouble.value,
                "subject": problem.subject,
                "sentence": problem.sentence,
                "fix": problem.fix,
                "address": None if problem.address is None else str(problem.address),
                "block": None if problem.block is None else str(problem.block),
                "handle": problem.handle,
                "node": problem.node,
                "owner": problem.owner,
                "allocated": problem.allocated,
                "sequence": problem.sequence,
            }
            for problem in report.problems
        ],
    }


@click.command()
@click.option("--ip", "addresses", multiple=True, metavar="ADDRESS", help="May be given often.")
@click.option(
    "--from-report",
    "reports",
    type=click.File(),
    multiple=True,
    metavar="FILE",
    help="What `ipam check -o` wrote; of several, only what all of them have.",
)
@click.option("--node", metavar="NAME", help="Everything of a node whose Node was deleted.")
@click.option(
    "--force",
    is_flag=True,
    help="Although a pod or a tunnel uses the address, the datastore has changed, or the node's"
    " agent objects.",
)
@datastore_option
@click.pass_context
def release(
    ctx: click.Context,
    addresses: tuple[str, ...],
    reports: tuple[TextIO, ...],
    node: str | None,
    force: bool,
) -> None:
    """Give back addresses that nobody uses any more, and mend what a report names.

    A report is carried out only while all that it names is as it was; with --force, whatever still
    is, so that an address somebody else has got since is left alone even then.

    \b
      podwire ipam release --from-report report.json
      podwire ipam release --ip 10.244.38.174
    """  # noqa: D301  # click wants the character
    if sum(map(bool, (addresses, reports, node))) != 1:
        raise BadInput(
            "say what to release", fix="give one of --ip ADDRESS, --from-report FILE, --node NAME"
        )
    store = open_datastore(ctx)
    if reports:
        _carry_out(store, reports, force=force)
    elif node is not None:
        _release_node(store, node, force=force)
    else:
        _release_addresses(store, [parse_address(text, "--ip") for text in addresses], force=force)


def _release_addresses(store: Store, wanted: Sequence[IPAddress], *, force: bool) -> None:
    if not force:
        _refuse_used(store, wanted)
    told = _ipam(store).release_addresses([Release(address=address) for address in wanted])
    if told.absent:
        names = ", ".join(map(str, told.absent[:NAMED]))
        more = f" and {len(told.absent) - NAMED} more" if len(told.absent) > NAMED else ""
        raise NotFound(f"not allocated: {names}{more}", fix="see podwire ipam show --ip ADDRESS")
    click.echo(f"Successfully released {', '.join(map(str, told.released))}")


def _refuse_used(store: Store, wanted: Sequence[IPAddress]) -> None:
    """Raise where a pod or a node's tunnel has one of the addresses, or where nobody can tell."""
    world = World(store.list("/").entries, SystemClock().now())
    for address in wanted:
        users = world.users.get(address, ())
        owner = world.taken[address].attributes if address in world.taken else {}
        type_, node = owner.get("type", ""), owner.get("node")
        if users:
            is_tunnel = "type" in users[0].expected
            fix = LEAVE_IT if is_tunnel else "delete the pod"
            raise InUse(f"{address} is used by {users[0].user.title}", fix=fix)
        if type_ in TUNNEL_TYPES - {*KNOWN_TUNNELS} and node in world.node_names:
            raise InUse(f"{address} may be in use as {type_} of node {node}", fix=LEAVE_IT)
    unread = [e.sentence for e in world.unreadable if e.subject.startswith(USERS)]
    if unread:
        raise InUse(
            f"it cannot be told who uses addresses: {unread[0]}",
            fix="apply that anew or delete it; --force if you know that nobody uses the address",
        )


def _release_node(store: Store, node: str, *, force: bool) -> None:
    objection = keys.objection_key(node)
    there = store.get(objection)
    if there is not None and not force:
        raise InUse(
            f"the agent of {node} runs, with {objectors(there)} of its pods",
            fix="delete them, or --force if that machine is no more",
        )
    endpoints = store.list(keys.ENDPOINTS).entries
    blocks = [record.value.cidr for record in Records(store).blocks()]
    done = Farewell(store, node, SystemClock(), SystemDice()).clear(blocks, endpoints)
    store.delete(objection)
    if there is None and not done:
        raise NotFound(
            f"there is no Node {node}, and nothing that one has left",
            fix="podwire ipam check names nodes that are gone and have left something",
        )
    click.echo(
        f"Successfully released {done.addresses} addresses, {done.blocks} blocks and"
        f" {done.endpoints} endpoints of {node}"
    )


def _carry_out(store: Store, reports: Sequence[TextIO], *, force: bool) -> None:
    found = look(store)
    told = [_read_report(file, found.cluster) for file in reports]
    wanted = [each for each in told[0] if all(each in other for other in told[1:])]
    now = {problem.identity: problem for problem in found.problems if problem.repairable}
    changed = [each for each in wanted if each not in now]
    if changed and not force:
        names = ", ".join(str(subject) for _, subject, *_ in changed[:NAMED])
        raise InUse(
            f"the datastore has changed since the report: {names}"
            + (f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""),
            fix="check again, or --force: what is as it was is released then, and nothing else",
        )
    problems = [now[each] for each in wanted if each in now]
    # Where somebody uses it, an address never becomes free by a repair.
    used = [address for address, users in found.users.items() if users]
    repairs = Repairs(store, _ipam(store), SystemClock(), used)
    leaked = [each for each in problems if each.trouble is Trouble.LEAKED]
    rest = [each for each in problems if each.trouble is not Trouble.LEAKED]
    rest.sort(key=lambda each: each.trouble not in FIRST)
    done = repairs.release(leaked)
    mended = sum(map(repairs.repair, rest))
    left = len(changed) + len(leaked) - len(done.released) + len(rest) - mended
    click.echo(f"{len(done.released)} addresses released, {mended} records mended", nl=False)
    click.echo(f"; {left} have changed since the report and were left alone" if left else "")


def _read_report(file: TextIO, cluster: str | None) -> list[Identity]:
    """What a report would have repaired."""
    try:
        told = json.load(file)
        if told["schema"] != SCHEMA:
            raise BadInput(
                f"{file.name}: schema {told['schema']!r} is unknown", fix=f"write {SCHEMA}"
            )
        found = [
            (each["trouble"], each["subject"], each["handle"], each["node"], each["sequence"])
            for each in told["problems"]
            if each["fix"] == REPAIR
        ]
        origin = told["cluster"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{file.name}: is no report of ipam check: {error}", fix="podwire ipam check -o FILE"
        ) from None
    if origin != cluster:
        raise BadInput(
            f"{file.name}: is a report of another cluster ({origin})", fix="check this one"
        )
    return found


def _ipam(store: Store) -> IPAM:
    return IPAM(store, "", SystemClock(), SystemDice(), node_labels={})
