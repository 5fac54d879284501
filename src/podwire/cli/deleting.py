"""`podwire delete`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from podwire.cli.completing import complete_kind, complete_name
from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.kinds import find_kind
from podwire.cli.options import Files, files_options, gathered
from podwire.cli.policy_names import stored_name
from podwire.cli.removal import refuse_removal, remove
from podwire.cli.resources import KIND_HELP, absent, named_in, namespace_option, tell
from podwire.errors import BadInput, InUse, NotFound, Stale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Entry, Store
    from podwire.cli.kinds import Kind
    from podwire.errors import PodwireError

TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How to delete."""

    skip_not_exists: bool
    dry_run: bool
    force: bool


wish_options = gathered(
    Wish,
    "wish",
    click.option("-s", "--skip-not-exists", is_flag=True, help="What does not exist is no error."),
    click.option("--dry-run", is_flag=True, help="Only show what would be deleted."),
    click.option(
        "--force",
        is_flag=True,
        help="A node that is gone for good: what its pods had goes, too. An endpoint whose pod is"
        " gone.",
    ),
)


@click.command(epilog=KIND_HELP)
@click.argument("kind", required=False, shell_complete=complete_kind)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_name)
@files_options
@namespace_option
@wish_options
@datastore_option
@click.pass_context
def delete(
    ctx: click.Context,
    kind: str | None,
    names: tuple[str, ...],
    files: Files,
    namespace: str,
    wish: Wish,
) -> None:
    """Delete resources: KIND NAME..., or what FILE describes.

    What others rely on is refused: a pool whose addresses are in use, a node with pods, the
    endpoint of a pod whose node's agent reports.

    \b
      podwire delete ippool old
      podwire delete -f peers.yaml --skip-not-exists
      podwire delete node vms103 --force        the machine is gone for good
    """  # noqa: D301  # click wants the character
    wanted = _wanted(kind, names, files, namespace)
    store = open_datastore(ctx)
    deleted: dict[str, int] = {}
    failures: list[PodwireError] = []
    for found, spot, name in wanted:
        try:
            _delete(store, found, (spot, name), wish)
        except NotFound as error:
            if not wish.skip_not_exists:
                failures.append(error)
        except (InUse, BadInput) as error:
            failures.append(error)
        else:
            deleted[found.name] = deleted.get(found.name, 0) + 1
            if wish.dry_run:
                click.echo(f"{found.name} {name} would be deleted")
    if deleted and not wish.dry_run:
        tell("deleted", deleted)
    elif not deleted and not failures:
        click.echo("No resource was there to delete")
    _complain(failures)


def _complain(failures: Sequence[PodwireError]) -> None:
    from podwire.cli.main import complain

    for failure in failures[:-1]:
        complain(failure)
    if failures:
        raise failures[-1]


def _wanted(
    kind: str | None, names: Sequence[str], files: Files, namespace: str
) -> list[tuple[Kind, str, str]]:
    """Kind, namespace and name of everything to delete."""
    if files.filenames:
        if kind is not None:
            raise BadInput("delete: give either KIND and NAME, or -f FILE", fix="leave one out")
        return named_in(files, namespace)
    if kind is None or not names:
        raise BadInput(
            "delete: no resource was named", fix="write KIND NAME, or -f FILE; all are never meant"
        )
    return [(find_kind(kind), namespace, name) for name in names]


def _delete(store: Store, kind: Kind, place: tuple[str, str], wish: Wish) -> None:
    for attempt in range(TRIES):
        entry = _entry(store, kind, place)
        try:
            if wish.dry_run:
                refuse_removal(store, kind, entry, force=wish.force)
            else:
                remove(store, kind, entry, force=wish.force)
        except Stale:
            if attempt == TRIES - 1:
                raise
        else:
            return


def _entry(store: Store, kind: Kind, place: tuple[str, str]) -> Entry:
    if kind.read_only is not None:
        raise BadInput(f"{kind.name} cannot be deleted: {kind.read_only}")
    namespace, name = place
    entry = store.get(kind.key(namespace, stored_name(store, kind, namespace, name)))
    if entry is None:
        raise absent(kind, *place)
    return entry
