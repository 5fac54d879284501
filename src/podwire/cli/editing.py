"""`podwire apply|create|replace|validate`, and what a change would do (`--dry-run`)."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING

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
from podwire.cli.options import Files, files_options
from podwire.cli.resources import namespace_option, tell
from podwire.cli.tables import output
from podwire.drivers.store import ensure_cluster
from podwire.errors import BadInput
from podwire.model import codec
from podwire.model.kept import KEPT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.boundary import Store
    from podwire.cli.applying import Change
    from podwire.cli.kinds import Kind
    from podwire.cli.yamlfile import Document
    from podwire.model.resource import JSON

VERBS = {Intent.APPLY: "apply", Intent.CREATE: "create", Intent.REPLACE: "replace"}

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Only show what would change, as a diff."
)


@click.command()
@files_options
@namespace_option
@dry_run_option
@datastore_option
@click.pass_context
def apply(ctx: click.Context, files: Files, namespace: str, dry_run: bool) -> None:
    """Create or replace the resources that FILE describes, all of them or none.

    \b
      podwire apply -f pools.yaml --dry-run     what would change?
      podwire apply -R -f cluster/
      podwire get ippool pods -o yaml | sed s/Never/Always/ | podwire apply -f -
    """  # noqa: D301  # click wants the character
    _write_files(ctx, files, namespace, Intent.APPLY, dry_run=dry_run)


@click.command()
@files_options
@namespace_option
@click.option("--skip-exists", is_flag=True, help="Leave what exists already as it is.")
@dry_run_option
@datastore_option
@click.pass_context
def create(
    ctx: click.Context, files: Files, namespace: str, skip_exists: bool, dry_run: bool
) -> None:
    """Create the resources that FILE describes; none of them when one exists already.

    \b
      podwire create -f pool.yaml
      podwire create -f defaults/ --skip-exists
    """  # noqa: D301  # click wants the character
    _write_files(ctx, files, namespace, Intent.CREATE, dry_run=dry_run, skip_exists=skip_exists)


@click.command()
@files_options
@namespace_option
@dry_run_option
@datastore_option
@click.pass_context
def replace(ctx: click.Context, files: Files, namespace: str, dry_run: bool) -> None:
    """Replace the resources that FILE describes; none of them when one does not exist.

    \b
      podwire replace -f pool.yaml --dry-run
    """  # noqa: D301  # click wants the character
    _write_files(ctx, files, namespace, Intent.REPLACE, dry_run=dry_run)


@click.command()
@files_options
@namespace_option
def validate(files: Files, namespace: str) -> None:
    """Check files without a datastore: every fault, with its line.

    What only the datastore knows (overlapping pools, taken addresses) `apply --dry-run` tells.

    \b
      podwire validate -R -f cluster/
    """  # noqa: D301  # click wants the character
    documents = _documents(files, namespace, "validate", alone=True)
    names = {document.source for document in documents}
    click.echo(f"{len(documents)} resource(s) in {len(names)} file(s) are valid")
    warn_of_kept(documents)


def _documents(
    files: Files, namespace: str, verb: str, *, alone: bool = False
) -> tuple[Document, ...]:
    if not files.filenames:
        raise BadInput(
            f"{verb}: no file was given", fix="write -f FILE, or -f - for standard input"
        )
    documents = files.read()
    check_documents(documents, namespace, alone=alone)
    return documents


def _write_files(
    ctx: click.Context,
    files: Files,
    namespace: str,
    intent: Intent,
    *,
    dry_run: bool,
    skip_exists: bool = False,
) -> None:
    """Carry out what files describe, or show it.

    Raises:
        BadInput, InUse, NotFound, Conflict: see `apply_documents`; nothing was written.
    """
    documents = _documents(files, namespace, VERBS[intent])
    if not documents:
        click.echo("No file holds a resource; nothing to do")
        return
    config = agent_config()
    if config is not None:
        check_passwords(documents, config.secrets_dir)
    store = open_datastore(ctx, create=not dry_run)
    if dry_run:
        show_changes(plan_changes(store, documents, namespace, intent, skip_exists=skip_exists))
        return
    ensure_cluster(store)
    done = apply_documents(store, documents, namespace, intent, skip_exists=skip_exists)
    if done:
        tell(intent.value, done)
    if left := len(documents) - done.total():
        click.echo(f"{left} resource(s) exist already and were left as they are")
    warn_of_kept(documents)


def warn_of_kept(documents: Sequence[Document]) -> None:
    """Say which kinds have no effect: nobody shall rely on a policy that filters nothing."""
    kinds = sorted({document.value["kind"] for document in documents} & KEPT.keys())
    if kinds:
        click.echo(
            f"note: Podwire keeps {', '.join(kinds)} for others and does not act on it yet",
            err=True,
        )


def show_changes(changes: Sequence[Change]) -> None:
    """Print what would change, as a diff of YAML; a sentence when nothing would."""
    changed = False
    for change in changes:
        kind = find_kind(change.document.value["kind"])
        name = f"{kind.name} {change.document.value['metadata']['name']}"
        before = [] if change.entry is None else _lines(kind, change.key, change.entry.value)
        after = _lines(kind, change.key, codec.encode(change.value))
        shown = list(difflib.unified_diff(before, after, f"{name} (now)", f"{name} (then)", n=2))
        changed = changed or bool(shown)
        click.echo("".join(shown), nl=False)
    if not changed:
        click.echo("nothing would change")


def _lines(kind: Kind, key: str, wire: Mapping[str, JSON]) -> list[str]:
    shown = json.loads(json.dumps(kind.shown(key, wire), default=dict))
    return output(shown, "yaml").splitlines(keepends=True)


def change_documents(
    store: Store, documents: Sequence[Document], namespace: str, *, dry_run: bool, done: str
) -> None:
    """Carry out documents that replace what is stored, checked as all are; or show it."""
    check_documents(documents, namespace)
    if dry_run:
        show_changes(plan_changes(store, documents, namespace, Intent.REPLACE))
    else:
        tell(done, apply_documents(store, documents, namespace, Intent.REPLACE))
