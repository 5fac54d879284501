"""Which datastore a command talks to, and its opening and closing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from podwire.drivers.store import open_store
from podwire.model.config import DEFAULT_CONFIG, DatastoreConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.boundary import Store
    from podwire.model.config import AgentConfig

P = ParamSpec("P")
T = TypeVar("T")

DATASTORE_VARIABLE = "PODWIRE_DATASTORE"
CONFIG_VARIABLE = "PODWIRE_CONFIG"
_CHOSEN = "podwire.datastore"


def datastore_option(command: Callable[P, T]) -> Callable[P, T]:
    """Give a command the option `--datastore`; `open_datastore` knows what was said."""
    return click.option(
        "--datastore",
        metavar="PATH|URL",
        envvar=DATASTORE_VARIABLE,
        expose_value=False,
        callback=_remember,
        help="The datastore's file, or etcd's https://HOST:2379[,…]"
        f" (or {DATASTORE_VARIABLE}; else as in the agent's configuration"
        f" {DEFAULT_CONFIG}, or the file {CONFIG_VARIABLE} names).",
    )(command)


def open_datastore(ctx: click.Context, *, create: bool = False) -> Store:
    """The datastore this command talks to; closed when the command ends.

    From `--datastore`, else PODWIRE_DATASTORE, else the agent's configuration file, else the
    default path. Unless `create` is given, a missing file is an error of the first call.

    Raises:
        BadInput: the agent's configuration is wrong.
    """
    store = open_store(datastore_config(ctx), create=create)
    ctx.call_on_close(store.close)
    return store


def datastore_config(ctx: click.Context) -> DatastoreConfig:
    """Which datastore this command talks to.

    Raises:
        BadInput: the agent's configuration is wrong.
    """
    chosen = ctx.meta.get(_CHOSEN) or os.environ.get(DATASTORE_VARIABLE)
    if chosen:
        from podwire.drivers.config import datastore_at

        return datastore_at(str(chosen), os.environ)
    config = agent_config()
    return DatastoreConfig() if config is None else config.datastore


def agent_config() -> AgentConfig | None:
    """The configuration of this machine's agent; None where it has none.

    Raises:
        BadInput: it is wrong.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    path: Path | None = Path(named or DEFAULT_CONFIG)
    if not named and not os.access(DEFAULT_CONFIG, os.F_OK):
        path = None
        if not any(name.startswith("PODWIRE_") for name in os.environ):
            return None
    from podwire.drivers.config import load_agent_config

    return load_agent_config(path, "", os.environ)


def _remember(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value:
        ctx.meta[_CHOSEN] = value
