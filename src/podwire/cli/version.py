"""`podwire version`: which version this is, and what the cluster says of itself."""

from __future__ import annotations

import click

from podwire import __version__
from podwire.cli.context import datastore_option, open_datastore
from podwire.errors import NotFound
from podwire.model import codec, keys


@click.command()
@click.option("--client", is_flag=True, help="Only this program's version; no datastore is asked.")
@datastore_option
@click.pass_context
def version(ctx: click.Context, client: bool) -> None:
    """Show this program's version, and the cluster's version, type and identity.

    \b
      podwire version --client
    """  # noqa: D301  # click wants the character
    click.echo(f"Client Version:    {__version__}")
    if client:
        return
    entry = open_datastore(ctx).get(keys.cluster_key())
    if entry is None:
        raise NotFound("the datastore holds no ClusterInformation", fix="add --client")
    cluster = codec.decode_cluster(entry.key, entry.value)
    click.echo(f"Cluster Version:   {cluster.version or '<none>'}")
    click.echo(f"Cluster Type:      {cluster.cluster_type or '<none>'}")
    click.echo(f"Cluster GUID:      {cluster.guid or '<none>'}")
    click.echo(f"Cluster Routing:   {cluster.routing}")
