"""`podwire apply|create|replace|patch|label`, and what a change would do (`--dry-run`)."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

import click

from podwire.cli.applying import (
    Intent,
    apply_documents,
    check_documents,
    check_passwords,
    plan_changes,
)
from podwire.cli.context import agent_config, datastore_option, open_datastore
from podwire.cli.kinds import find_kind
from podwire.cli.resources import absent, files_option, namespace_option, tell
from podwire.cli.tables import output
from podwire.cli.yamlfile import Document, parse_documents, read_documents
from podwire.drivers.store import ensure_cluster
from podwire.errors import BadInput
from podwire.model import codec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.boundary import Store
    from podwire.cli.kinds import Kind
    from podwire.model.resource import JSON

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Only show what would change, as a diff."
)


def write_documents(
    ctx: click.Context, files: Sequence[str], namespace: str, intent: Intent, *, dry_run: bool
) -> None:
    """Carry out what files describe, or show it.

    Raises:
        BadInput, InUse, NotFound, Conflict: see `apply_documents`; nothing was written.
    """
    if not files:
        verb = {Intent.APPLY: "apply", Intent.CREATE: "create", Intent.REPLACE: "replace"}[intent]
        raise BadInput(
            f"{verb}: no file was given", fix="write -f FILE, or -f - for standard input"
        )
    documents = read_documents(files)
    check_documents(documents, namespace)
    config = agent_config()
    if config is not None:
        check_passwords(documents, config.secrets_dir)
    store = open_datastore(ctx, create=not dry_run)
    if dry_run:
        show_difference(store, documents, namespace, intent)
        return
    ensure_cluster(store)
    tell(intent.value, apply_documents(store, documents, namespace, intent))


@click.command()
@files_option
@namespace_option
@dry_run_option
@datastore_option
@click.pass_context
def apply(ctx: click.Context, files: tuple[str, ...], namespace: str, dry_run: bool) -> None:
    """Create or replace the resources that FILE describes, all of them or none."""
    write_documents(ctx, files, namespace, Intent.APPLY, dry_run=dry_run)


@click.command()
@files_option
@namespace_option
@dry_run_option
@datastore_option
@click.pass_context
def create(ctx: click.Context, files: tuple[str, ...], namespace: str, dry_run: bool) -> None:
    """Create the resources that FILE describes; none of them when one exists already."""
    write_documents(ctx, files, namespace, Intent.CREATE, dry_run=dry_run)


@click.command()
@files_option
@namespace_option
@dry_run_option
@datastore_option
@click.pass_context
def replace(ctx: click.Context, files: tuple[str, ...], namespace: str, dry_run: bool) -> None:
    """Replace the resources that FILE describes; none of them when one does not exist."""
    write_documents(ctx, files, namespace, Intent.REPLACE, dry_run=dry_run)


@click.command()
@click.argument("kind")
@click.argument("name")
@click.option("-p", "--patch", "text", required=True, metavar="PATCH", help="As JSON or YAML.")
@click.option(
    "-t",
    "--type",
    expose_value=False,
    type=click.Choice(["merge", "strategic"]),
    default="merge",
    help="Both mean a merge (RFC 7386): null deletes a field, a list replaces a list.",
)
@namespace_option
@dry_run_option
@datastore_option
@click.pass_context
def patch(
    ctx: click.Context, kind: str, name: str, text: str, namespace: str, dry_run: bool
) -> None:
    """Change some fields of one resource.

    podwire patch ippool pods -p '{"spec": {"natOutgoing": true}}'
    """
    documents = parse_documents(text, "--patch")
    if len(documents) != 1 or not isinstance(documents[0].value, dict):
        raise BadInput("--patch must be one mapping", fix='write it like {"spec": {…}}')
    store = open_datastore(ctx)
    change_one(store, find_kind(kind), (namespace, name), documents[0].value, dry_run=dry_run)


@click.command()
@click.argument("kind")
@click.argument("name")
@click.argument("labels", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@click.option("--overwrite", is_flag=True, help="Change the value of a label that is there.")
@namespace_option
@datastore_option
@click.pass_context
def label(
    ctx: click.Context,
    kind: str,
    name: str,
    labels: tuple[str, ...],
    overwrite: bool,
    namespace: str,
) -> None:
    """Label one resource: KEY=VALUE sets a label, KEY- takes it away."""
    store, found = open_datastore(ctx), find_kind(kind)
    there = stored(store, found, namespace, name)["metadata"].get("labels") or {}
    wanted: dict[str, JSON] = {}
    for text in labels:
        key, given, value = text.partition("=")
        if not given and key.endswith("-"):
            wanted[key.removesuffix("-")] = None
        elif not given:
            raise BadInput(f"{text!r} is no label", fix="write KEY=VALUE, or KEY- to take it away")
        elif there.get(key, value) != value and not overwrite:
            raise BadInput(
                f"{found.name} {name} has the label {key}={there[key]}", fix="add --overwrite"
            )
        else:
            wanted[key] = value
    fields = {"metadata": {"labels": wanted}}
    change_one(store, found, (namespace, name), fields, dry_run=False)


def change_one(
    store: Store, kind: Kind, place: tuple[str, str], fields: Mapping[str, JSON], *, dry_run: bool
) -> None:
    """Lay fields over one stored resource, checked as if the whole had been written by hand."""
    namespace, name = place
    if kind.read_only is not None:
        raise BadInput(f"{kind.name} cannot be changed: {kind.read_only}")
    whole = merged(stored(store, kind, namespace, name), fields)
    # Written as text, so that a fault has a line, and a value of the wrong type is told as one.
    documents = parse_documents(output(whole, "yaml"), f"{kind.name} {name}")
    check_documents(documents, namespace)
    if dry_run:
        show_difference(store, documents, namespace, Intent.REPLACE)
        return
    tell("changed", apply_documents(store, documents, namespace, Intent.REPLACE))


def stored(store: Store, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
    """One resource as JSON, with its revision.

    Raises:
        NotFound: there is none.
    """
    entry = store.get(kind.key(namespace, name))
    if entry is None:
        raise absent(kind, namespace, name)
    wire: dict[str, Any] = json.loads(json.dumps(kind.wire(entry), default=dict))
    wire.pop("status", None)
    return wire


def merged(whole: JSON, fields: JSON) -> JSON:
    """A merge patch (RFC 7386): null deletes, mappings merge, all else replaces."""
    if not isinstance(fields, dict):
        return fields
    result = dict(whole) if isinstance(whole, dict) else {}
    for name, value in fields.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def show_difference(
    store: Store, documents: Sequence[Document], namespace: str, intent: Intent
) -> None:
    """Print what would change, as a diff of YAML; a sentence when nothing would."""
    changed = False
    for change in plan_changes(store, documents, namespace, intent):
        name = f"{change.document.value['kind']} {change.document.value['metadata']['name']}"
        before = [] if change.entry is None else _lines(change.entry.value)
        after = _lines(codec.encode(change.value))
        shown = list(difflib.unified_diff(before, after, f"{name} (now)", f"{name} (then)", n=2))
        changed = changed or bool(shown)
        click.echo("".join(shown), nl=False)
    if not changed:
        click.echo("nothing would change")


def _lines(wire: Mapping[str, JSON]) -> list[str]:
    return output(json.loads(json.dumps(wire, default=dict)), "yaml").splitlines(keepends=True)
