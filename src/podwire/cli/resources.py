"""`podwire get`: Calico's v3 resources in the datastore; and what its sister commands share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from podwire.cli.completing import complete_kind, complete_name, complete_namespace
from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.kinds import find_kind, node_cells
from podwire.cli.options import Files, files_options, gathered
from podwire.cli.policy_names import stored_name
from podwire.cli.tables import columns, output
from podwire.errors import BadInput, NotFound
from podwire.model import codec, keys
from podwire.model.bgp import DEFAULT_AS_NUMBER
from podwire.model.codec import API_VERSION
from podwire.model.selector import Selector, parse_selector

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from podwire.boundary import Entry, Store
    from podwire.cli.kinds import Kind
    from podwire.cli.yamlfile import Document

KIND_HELP = (
    "KIND is ippool, node, workloadendpoint (wep), ipreservation, ipamconfig, clusterinfo,"
    " bgpconfiguration, bgppeer or bgpfilter. Kept for others, without effect here yet:"
    " networkpolicy, globalnetworkpolicy, their staged forms, networkset, globalnetworkset,"
    " hostendpoint, profile, tier, felixconfiguration, kubecontrollersconfiguration,"
    " caliconodestatus."
)
DEFAULT_NAMESPACE = "default"
TABLES = frozenset({"", "ps", "wide"})
FORMATS = frozenset({*TABLES, "json", "yaml", "name"})
OF_ONE_CLUSTER = ("uid", "creationTimestamp", "resourceVersion", "generation", "selfLink")
"""Metadata that means nothing elsewhere."""

namespace_option = click.option(
    "-n",
    "--namespace",
    default=DEFAULT_NAMESPACE,
    metavar="NS",
    shell_complete=complete_namespace,
    help="Namespace of the resources.",
)
kind_argument = click.argument("kind", shell_complete=complete_kind)
name_argument = click.argument("name", shell_complete=complete_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How resources are shown, and which."""

    format: str | None
    selector: str | None
    export: bool
    namespace: str
    everywhere: bool

    @property
    def shape(self) -> str:
        """The format; `` is the plain table, as is calicoctl's ps."""
        return {None: "", "ps": "", "yml": "yaml"}.get(self.format, str(self.format))

    @property
    def tells_namespaces(self) -> bool:
        """Whether the table has their column: as calicoctl's, when one or all were asked for."""
        source = click.get_current_context().get_parameter_source("namespace")
        return self.everywhere or source is ParameterSource.COMMANDLINE

    @property
    def chosen(self) -> Selector | None:
        """The selector.

        Raises:
            BadInput: it is none.
        """
        return parse_selector(self.selector) if self.selector else None


look_options = gathered(
    Look,
    "look",
    click.option(
        "-o",
        "--output",
        "format",
        metavar="FORMAT",
        help="ps (a table), wide, json, yaml, name, or custom-columns=COLUMN,…",
    ),
    click.option(
        "-l", "--selector", metavar="SELECTOR", help="Only these by label, like: zone == 'a'."
    ),
    click.option("--export", is_flag=True, help="Leave out what has a meaning only in here."),
    namespace_option,
    click.option(
        "-A", "--all-namespaces", "everywhere", is_flag=True, help="Resources of all namespaces."
    ),
)


@click.command(epilog=KIND_HELP + " Read-only: blockaffinity.")
@click.argument("kind", required=False, shell_complete=complete_kind)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_name)
@files_options
@look_options
@datastore_option
@click.pass_context
def get(
    ctx: click.Context, kind: str | None, names: tuple[str, ...], files: Files, look: Look
) -> None:
    """Show resources: all of a KIND, or KIND,KIND; the ones named; or those that FILE names.

    \b
      podwire get ippool -o wide
      podwire get nodes,ippools
      podwire get wep -A -l "app == 'web'"
      podwire get node vms103 -o yaml --export > vms103.yaml
    """  # noqa: D301  # click wants the character
    asked = _asked(kind, names, files, look)
    for each, _, _ in asked:
        _header(each, look)
    store = open_datastore(ctx)
    found: list[tuple[Kind, Sequence[Entry]]] = []
    gone: list[NotFound] = []
    for each, spot, wanted in asked:
        entries, missing = _entries(store, each, spot, wanted, everywhere=look.everywhere)
        found.append((each, _chosen(entries, look)))
        gone += [absent(each, spot, name) for name in missing]
    if gone and not any(entries for _, entries in found):
        raise gone[0]
    if look.shape in {"json", "yaml"}:
        one = len(names) == 1 or (kind is None and len(found) == 1)
        click.echo(output(_whole(found, look, one=one), look.shape), nl=False)
    elif look.shape == "name":
        for each, entries in found:
            for entry in entries:
                click.echo(f"{each.name.lower()}/{each.wire(entry)['metadata']['name']}")
    elif not _tables(store, found, look):
        ctx.exit(1)
    if gone:
        raise gone[0]


def _asked(
    kind: str | None, names: tuple[str, ...], files: Files, look: Look
) -> list[tuple[Kind, str, tuple[str, ...]]]:
    """Kind, namespace and names (none: all) of what is to be shown."""
    if (kind is None) == (not files.filenames):
        raise BadInput("get: give either KIND, or -f FILE", fix="podwire get ippool")
    if kind is None:
        return [(each, spot, (name,)) for each, spot, name in named_in(files, look.namespace)]
    kinds = {each.name: each for each in map(find_kind, kind.split(","))}
    if len(kinds) > 1 and names:
        raise BadInput("get: names need one KIND", fix="write one KIND, or no names")
    return [(each, look.namespace, names) for each in kinds.values()]


def _tables(store: Store, found: Sequence[tuple[Kind, Sequence[Entry]]], look: Look) -> bool:
    """Print a table for each kind; whether all could be read."""
    by_kind: dict[str, tuple[Kind, list[Entry]]] = {}
    for kind, entries in found:
        by_kind.setdefault(kind.name, (kind, []))[1].extend(entries)
    sound = True
    for number, (kind, entries) in enumerate(by_kind.values()):
        if kind.name == "Node":
            kind = replace(kind, cells=node_cells(_cluster_as(store)))  # noqa: PLW2901
        header = _header(kind, look)
        values = []
        for entry in entries:
            try:
                values.append(codec.decode(entry.key, entry.value))
            except BadInput as error:
                click.echo(f"warning: {error}", err=True)
                sound = False
        if kind.order is not None:
            values.sort(key=kind.order)
        click.echo("\n" if number else "", nl=False)
        click.echo(columns(header, [kind.row(value, header) for value in values]), nl=False)
    return sound


def _header(kind: Kind, look: Look) -> tuple[str, ...]:
    """The columns a format asks for; json, yaml and name have none."""
    if look.shape in FORMATS:
        return kind.header(wide=look.shape == "wide", namespaces=look.tells_namespaces)
    word, given, text = look.shape.partition("=")
    if word != "custom-columns" or not given:
        raise BadInput(
            f"output format {look.shape!r} is unknown",
            fix="write ps, wide, json, yaml, name or custom-columns=COLUMN,…",
        )
    wanted = tuple(name.strip().upper() for name in text.split(","))
    for column in wanted:
        if column not in kind.cells:
            known = ",".join(kind.cells)
            raise BadInput(f"{kind.name} has no column {column!r}", fix=f"there are {known}")
    return wanted


def _chosen(entries: Sequence[Entry], look: Look) -> Sequence[Entry]:
    selector = look.chosen
    return entries if selector is None else [e for e in entries if selector.matches(_labels(e))]


def _labels(entry: Entry) -> dict[str, str]:
    return dict((entry.value.get("metadata") or {}).get("labels") or {})


def _cluster_as(store: Store) -> int:
    """The AS number of nodes that have none of their own."""
    key = keys.bgp_configuration_key("default")
    entry = store.get(key)
    found = None if entry is None else codec.decode_bgp_configuration(key, entry.value).as_number
    return DEFAULT_AS_NUMBER if found is None else found


def _entries(
    store: Store, kind: Kind, namespace: str, names: Sequence[str], *, everywhere: bool
) -> tuple[Sequence[Entry], Sequence[str]]:
    """Those there are, and the names of which there is none."""
    if names and everywhere and kind.namespaced:
        raise BadInput("a name needs one namespace", fix="write -n NAMESPACE instead of -A")
    if not names or kind.name == "BlockAffinity":
        narrow = kind.namespaced and not everywhere
        prefix = f"{kind.key(namespace, 'x').rpartition('/')[0]}/" if narrow else kind.prefix
        entries = store.list(prefix).entries
        if kind.owns is not None:
            entries = tuple(entry for entry in entries if kind.owns(entry.key))
        if not names:
            return entries, ()
        named = {kind.wire(entry)["metadata"]["name"]: entry for entry in entries}
    else:
        names = [stored_name(store, kind, namespace, name) for name in names]
        named = {
            name: entry
            for name in names
            if (entry := store.get(kind.key(namespace, name))) is not None
        }
    missing = [name for name in names if name not in named]
    return [named[name] for name in names if name in named], missing


def _whole(found: Sequence[tuple[Kind, Sequence[Entry]]], look: Look, *, one: bool) -> Any:
    """What json and yaml show: one object, or a list."""
    shown = [kind.wire(entry) for kind, entries in found for entry in entries]
    if look.export:
        shown = [_exported(wire) for wire in shown]
    if one and len(shown) == 1:
        return shown[0]
    kinds = {kind.name for kind, _ in found}
    if len(kinds) > 1:
        # As calicoctl shows them: a List of several kinds it could not read again.
        return shown
    return {
        "kind": f"{kinds.pop()}List",
        "apiVersion": API_VERSION,
        "metadata": {},
        "items": shown,
    }


def _exported(wire: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in wire["metadata"].items() if k not in OF_ONE_CLUSTER}
    return {**{k: v for k, v in wire.items() if k != "status"}, "metadata": metadata}


def named_in(files: Files, namespace: str) -> list[tuple[Kind, str, str]]:
    """Kind, namespace and name of every document.

    Raises:
        BadInput: with all that hinders it, place by place.
    """
    from podwire.cli.yamlfile import refuse
    from podwire.model.shape import Fault

    documents = files.read()
    faults: list[tuple[Document, Fault]] = []
    found = []
    for document in documents:
        faults += [(document, fault) for fault in document.faults]
        value = document.value if isinstance(document.value, dict) else {}
        metadata = value.get("metadata")
        kind = value.get("kind")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if isinstance(kind, str) and isinstance(name, str) and isinstance(metadata, dict):
            try:
                spot = metadata.get("namespace") or namespace
                found.append((find_kind(kind), str(spot), name))
            except BadInput as error:
                faults.append((document, Fault(("kind",), f": {error.message}", error.fix)))
        elif not document.unread:
            faults.append((document, Fault((), "kind or metadata.name is missing")))
    refuse(faults)
    return found


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
