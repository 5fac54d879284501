"""`podwire datastore`: what lies in the datastore, key by key."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

import click

from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.tables import columns, output
from podwire.drivers.store.jsontext import Opaque
from podwire.errors import Conflict, NotFound
from podwire.model import codec, keys

if TYPE_CHECKING:
    from podwire.boundary import Entry
    from podwire.model.resource import JSON

TRIES = 5

format_option = click.option(
    "-o", "--output", "format", type=click.Choice(["json", "yaml"]), help="The values too."
)


@click.group()
def datastore() -> None:
    """Look into the datastore; move it elsewhere.

    \b
      podwire datastore list /calico/ipam/
      podwire datastore export > all
    """  # noqa: D301  # click wants the character


@datastore.command("list")
@click.argument("prefix", default="/")
@format_option
@datastore_option
@click.pass_context
def list_(ctx: click.Context, prefix: str, format: str | None) -> None:
    """List the keys that begin with PREFIX (all without one).

    \b
      podwire datastore list /calico/ipam/ -o yaml
    """  # noqa: D301  # click wants the character
    entries = open_datastore(ctx).list(prefix).entries
    if format is not None:
        click.echo(output([_shown(entry) for entry in entries], format), nl=False)
        return
    rows = [(entry.key, entry.revision, len(json.dumps(_value(entry)))) for entry in entries]
    if rows:
        click.echo(columns(("KEY", "REVISION", "BYTES"), rows), nl=False)
    else:
        click.echo(f"no key begins with {prefix}", err=True)


@datastore.command("get")
@click.argument("key")
@format_option
@datastore_option
@click.pass_context
def get(ctx: click.Context, key: str, format: str | None) -> None:
    """Show the value under KEY (with -o also its key and revision).

    \b
      podwire datastore get /calico/ipam/v2/config
    """  # noqa: D301  # click wants the character
    entry = open_datastore(ctx).get(key)
    if entry is None:
        raise NotFound(
            f"datastore: there is nothing under {key}",
            fix=f"see what is there: podwire datastore list {key.rpartition('/')[0]}/",
        )
    shown = _value(entry) if format is None else _shown(entry)
    click.echo(output(shown, format or "json"), nl=False)


@datastore.group("migrate")
def migrate() -> None:
    """Lock the datastore while something big is changed, and unlock it.

    While it is locked (datastoreReady is false) no pod is attached (ADD fails with code 11, and
    runtimes try again) and DELs wait on their nodes. Pods that run keep their network.

    \b
      podwire datastore migrate lock
      podwire ipam split 4 --name pods
      podwire datastore migrate unlock
    """  # noqa: D301  # click wants the character


@migrate.command("lock")
@datastore_option
@click.pass_context
def lock(ctx: click.Context) -> None:
    """Stop all attaching and detaching in the whole cluster.

    \b
      podwire datastore migrate lock
    """  # noqa: D301  # click wants the character
    click.echo("Datastore locked" if _make_ready(ctx, ready=False) else "Datastore was locked")


@migrate.command("unlock")
@datastore_option
@click.pass_context
def unlock(ctx: click.Context) -> None:
    """Let pods be attached and detached again.

    \b
      podwire datastore migrate unlock
    """  # noqa: D301  # click wants the character
    click.echo("Datastore unlocked" if _make_ready(ctx, ready=True) else "Datastore was unlocked")


def _make_ready(ctx: click.Context, *, ready: bool) -> bool:
    """Set datastoreReady; whether that changed it."""
    store = open_datastore(ctx)
    for _ in range(TRIES):
        entry = store.get(keys.cluster_key())
        if entry is None:
            raise NotFound(
                "the datastore holds no ClusterInformation: no cluster is in it",
                fix="start an agent or apply a resource, or name another datastore",
            )
        cluster = codec.decode_cluster(entry.key, entry.value)
        if cluster.ready is ready:
            return False
        try:
            store.update(entry.key, codec.encode(replace(cluster, ready=ready)), entry.revision)
        except Conflict:
            continue
        return True
    raise Conflict("others keep changing the ClusterInformation", fix="try again")


@datastore.command("export")
@datastore_option
@click.pass_context
def export(ctx: click.Context) -> None:
    """Print everything that lies in the datastore, one JSON object a line.

    \b
    Move from a file to etcd, agents stopped or the cluster frozen (datastoreReady: false):
      podwire datastore export --datastore /var/lib/podwire/datastore.db > all
      podwire datastore import --datastore https://10.0.0.1:2379 all
    """  # noqa: D301  # click wants the character
    from podwire.drivers.store.transfer import export_lines

    for line in export_lines(open_datastore(ctx)):
        click.echo(line)


@datastore.command("import")
@click.argument("file", type=click.File(encoding="utf-8"))
@datastore_option
@click.pass_context
def import_(ctx: click.Context, file: TextIO) -> None:
    """Write an export (FILE, or - for standard input) into an empty datastore.

    Cut off, the same command goes on where it stopped.

    \b
      podwire datastore import --datastore https://10.0.0.1:2379 all
    """  # noqa: D301  # click wants the character
    from podwire.drivers.store.transfer import import_objects, parse_lines

    objects = parse_lines(file, file.name)
    written = import_objects(open_datastore(ctx, create=True), objects)
    click.echo(f"{written} objects written, {len(objects) - written} were there already")


def _shown(entry: Entry) -> JSON:
    revision = entry.revision
    return {
        "key": entry.key,
        "value": _value(entry),
        # A number where the datastore counts (sqlite, etcd); opaque text stays text.
        "modRevision": int(revision) if revision.isdecimal() else revision,
    }


def _value(entry: Entry) -> JSON:
    """The value; as text where it is no JSON object."""
    return entry.value.text if isinstance(entry.value, Opaque) else entry.value
