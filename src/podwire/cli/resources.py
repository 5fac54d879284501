"""`podwire get|delete`: Calico's v3 resources in the datastore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.kinds import find_kind
from podwire.cli.main import complain
from podwire.cli.tables import columns, output
from podwire.errors import BadInput, InUse, NotFound, PodwireError, Stale
from podwire.model import codec, keys
from podwire.model.codec import API_VERSION
from podwire.model.selector import parse_selector

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from podwire.boundary import Entry, Store
    from podwire.cli.kinds import Kind
    from podwire.model.selector import Selector

KIND_HELP = (
    "KIND is ippool, node, workloadendpoint (wep), ipreservation, clusterinfo, bgpconfiguration,"
    " bgppeer or bgpfilter."
)
DEFAULT_NAMESPACE = "default"
TRIES = 5
_SELECTOR = "podwire.selector"

namespace_option = click.option(
    "-n", "--namespace", default=DEFAULT_NAMESPACE, metavar="NS", help="Namespace of the resources."
)
files_option = click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE", help="A file, a directory, or -."
)


@click.command(epilog=KIND_HELP + " Also blockaffinity, read-only.")
@click.argument("kind")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "-o",
    "--output",
    "format",
    metavar="FORMAT",
    help="wide, json, yaml, name, or custom-columns=COLUMN,…",
)
@click.option(
    "-l",
    "--selector",
    metavar="SELECTOR",
    expose_value=False,
    callback=lambda ctx, _, text: _remember(ctx, text),
    help="Only these, like: zone == 'a'.",
)
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Resources of all namespaces.")
@datastore_option
@click.pass_context
def get(
    ctx: click.Context,
    kind: str,
    names: tuple[str, ...],
    format: str | None,
    namespace: str,
    all_namespaces: bool,
) -> None:
    """Show resources: all of a KIND, or the ones named."""
    found = find_kind(kind)
    header = _header(found, format or "", all_namespaces=all_namespaces)
    chosen: Selector | None = ctx.meta[_SELECTOR]
    store = open_datastore(ctx)
    entries = _entries(store, found, names, namespace, everywhere=all_namespaces)
    if chosen is not None:
        entries = [entry for entry in entries if chosen.matches(_labels(entry))]
    if format in {"json", "yaml"}:
        shown = [found.wire(entry) for entry in entries]
        click.echo(output(shown[0] if len(names) == 1 else _list(found, shown), format), nl=False)
        return
    if format == "name":
        for entry in entries:
            click.echo(f"{found.name.lower()}/{found.wire(entry)['metadata']['name']}")
        return
    rows, broken = [], 0
    for entry in entries:
        try:
            rows.append(found.row(codec.decode(entry.key, entry.value), header))
        except BadInput as error:
            click.echo(f"warning: {error}", err=True)
            broken += 1
    click.echo(columns(header, rows), nl=False)
    if broken:
        ctx.exit(1)


def _header(kind: Kind, format: str, *, all_namespaces: bool) -> tuple[str, ...]:
    """The columns a format asks for; json, yaml and name have none."""
    if format in {"", "wide", "json", "yaml", "name"}:
        return kind.header(wide=format == "wide", all_namespaces=all_namespaces)
    word, given, text = format.partition("=")
    if word != "custom-columns" or not given:
        raise BadInput(
            f"output format {format!r} is unknown",
            fix="write wide, json, yaml, name or custom-columns=COLUMN,…",
        )
    columns = tuple(name.strip().upper() for name in text.split(","))
    for column in columns:
        if column not in kind.cells:
            known = ",".join(kind.cells)
            raise BadInput(f"{kind.name} has no column {column!r}", fix=f"there are {known}")
    return columns


def _remember(ctx: click.Context, text: str | None) -> None:
    ctx.meta[_SELECTOR] = parse_selector(text) if text else None


def _labels(entry: Entry) -> dict[str, str]:
    return dict((entry.value.get("metadata") or {}).get("labels") or {})


@click.command(epilog=KIND_HELP)
@click.argument("kind", required=False)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@files_option
@namespace_option
@click.option("-s", "--skip-not-exists", is_flag=True, help="What does not exist is no error.")
@datastore_option
@click.pass_context
def delete(
    ctx: click.Context,
    kind: str | None,
    names: tuple[str, ...],
    files: tuple[str, ...],
    namespace: str,
    skip_not_exists: bool,
) -> None:
    """Delete resources: KIND NAME..., or what FILE describes."""
    wanted = _wanted(kind, names, files, namespace)
    store = open_datastore(ctx)
    deleted: dict[str, int] = {}
    failures: list[PodwireError] = []
    for found, spot, name in wanted:
        try:
            _delete(store, found, spot, name)
        except NotFound as error:
            if not skip_not_exists:
                failures.append(error)
        except InUse as error:
            failures.append(error)
        else:
            deleted[found.name] = deleted.get(found.name, 0) + 1
    if deleted:
        tell("deleted", deleted)
    elif not failures:
        click.echo("No resource was there to delete")
    for failure in failures[:-1]:
        complain(failure)
    if failures:
        raise failures[-1]


def _entries(
    store: Store, kind: Kind, names: Sequence[str], namespace: str, *, everywhere: bool
) -> Sequence[Entry]:
    if names and everywhere and kind.namespaced:
        raise BadInput("a name needs one namespace", fix="write -n NAMESPACE instead of -A")
    if not names or kind.name == "BlockAffinity":
        narrow = kind.namespaced and not everywhere
        prefix = keys.endpoint_prefix(namespace) if narrow else kind.prefix
        entries = store.list(prefix).entries
        if kind.name != "BlockAffinity":
            return entries
        entries = tuple(entry for entry in entries if keys.parse_affinity_key(entry.key))
        named = {kind.wire(entry)["metadata"]["name"]: entry for entry in entries}
        if not names:
            return entries
    else:
        named = {
            name: entry
            for name in names
            if (entry := store.get(kind.key(namespace, name))) is not None
        }
    missing = [name for name in names if name not in named]
    if missing:
        raise absent(kind, namespace, missing[0])
    return [named[name] for name in names]


def _list(kind: Kind, items: Sequence[Any]) -> dict[str, Any]:
    return {
        "kind": f"{kind.name}List",
        "apiVersion": API_VERSION,
        "metadata": {},
        "items": list(items),
    }


def _wanted(
    kind: str | None, names: Sequence[str], files: Sequence[str], namespace: str
) -> list[tuple[Kind, str, str]]:
    """Kind, namespace and name of everything to delete."""
    if files:
        if kind is not None:
            raise BadInput("delete: give either KIND and NAME, or -f FILE", fix="leave one out")
        from podwire.cli.yamlfile import read_documents, refuse

        documents = read_documents(files)
        found = []
        for document in documents:
            value = document.value if isinstance(document.value, dict) else {}
            metadata = value.get("metadata")
            name = metadata.get("name") if isinstance(metadata, dict) else None
            refuse([(document, fault) for fault in document.faults])
            if not isinstance(value.get("kind"), str) or not isinstance(name, str):
                raise BadInput(f"{document.place(())}: kind or metadata.name is missing")
            assert isinstance(metadata, dict)
            spot = metadata.get("namespace") or namespace
            found.append((find_kind(value["kind"]), str(spot), name))
        return found
    if kind is None or not names:
        raise BadInput(
            "delete: no resource was named", fix="write KIND NAME, or -f FILE; all are never meant"
        )
    return [(find_kind(kind), namespace, name) for name in names]


def _delete(store: Store, kind: Kind, namespace: str, name: str) -> None:
    if kind.read_only is not None:
        raise BadInput(f"{kind.name} cannot be deleted: {kind.read_only}")
    if kind.name == "ClusterInformation":
        raise InUse(f"ClusterInformation {name} is the cluster itself and cannot be deleted")
    key = kind.key(namespace, name)
    for attempt in range(TRIES):
        entry = store.get(key)
        if entry is None:
            raise absent(kind, namespace, name)
        try:
            if kind.name == "IPPool":
                from podwire.cli.removal import remove_pool
                from podwire.drivers.clock import SystemClock

                try:
                    remove_pool(store, key, SystemClock())
                except BadInput:  # too broken to be in anybody's use
                    store.delete(key, entry.revision)
            else:
                store.delete(key, entry.revision)
        except Stale:
            if attempt == TRIES - 1:
                raise
        else:
            return


def absent(kind: Kind, namespace: str, name: str) -> NotFound:
    """The error that a resource does not exist."""
    place = f" in namespace {namespace}" if kind.namespaced else ""
    return NotFound(
        f"{kind.name} {name} does not exist{place}",
        fix=f"see what there is: podwire get {kind.name.lower()}"
        + (" -A" if kind.namespaced else ""),
    )


def tell(done: str, counts: Counter[str] | dict[str, int]) -> None:
    """Say how many resources of a kind were written, in the field's usual words."""
    if len(counts) == 1:
        ((kind, count),) = counts.items()
        click.echo(f"Successfully {done} {count} '{kind}' resource(s)")
    else:
        click.echo(f"Successfully {done} {sum(counts.values())} resource(s)")
