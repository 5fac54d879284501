"""`podwire patch|label`: a few fields of one stored resource."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.editing import change_documents, dry_run_option
from podwire.cli.kinds import find_kind
from podwire.cli.options import gathered
from podwire.cli.policy_names import stored_name
from podwire.cli.resources import absent, kind_argument, name_argument, namespace_option
from podwire.cli.tables import output
from podwire.cli.yamlfile import parse_documents
from podwire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Store
    from podwire.cli.kinds import Kind
    from podwire.model.resource import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A patch as it was written."""

    text: str
    type: str


patch_options = gathered(
    Patch,
    "patch",
    click.option("-p", "--patch", "text", required=True, metavar="PATCH", help="As JSON or YAML."),
    click.option(
        "-t",
        "--type",
        type=click.Choice(["strategic", "json", "merge"]),
        default="strategic",
        show_default=True,
        help="json: a list of operations (RFC 6902). merge, and strategic alike: fields laid over"
        " the resource (RFC 7386); null deletes a field, a list replaces a list.",
    ),
)


@click.command("patch")
@kind_argument
@name_argument
@patch_options
@namespace_option
@dry_run_option
@datastore_option
@click.pass_context
def patch(
    ctx: click.Context, kind: str, name: str, patch: Patch, namespace: str, dry_run: bool
) -> None:
    """Change some fields of one resource.

    \b
      podwire patch ippool pods -p '{"spec": {"natOutgoing": true}}'
      podwire patch node vms103 -t json \\
        -p '[{"op": "remove", "path": "/spec/bgp/asNumber"}]'
    """  # noqa: D301  # click wants the character
    change = _parsed(patch)
    store, found = open_datastore(ctx), find_kind(kind)
    name = stored_name(store, found, namespace, name)
    whole = _stored(store, found, namespace, name)
    after = _operated(whole, change) if patch.type == "json" else merged(whole, change)
    _put(store, found, (namespace, name), after, dry_run=dry_run, done="patched")


@click.command()
@kind_argument
@name_argument
@click.argument("labels", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@click.option("--overwrite", is_flag=True, help="Change the value of a label that is there.")
@click.option("--remove", is_flag=True, help="Take labels away: write KEY alone.")
@namespace_option
@dry_run_option
@datastore_option
@click.pass_context
def label(ctx: click.Context, /, kind: str, name: str, **given: Any) -> None:
    """Label one resource: KEY=VALUE sets a label; KEY-, or KEY with --remove, takes it away.

    \b
      podwire label node vms103 rack=7
      podwire label node vms103 rack=8 --overwrite
      podwire label node vms103 rack --remove
    """  # noqa: D301  # click wants the character
    store, found = open_datastore(ctx), find_kind(kind)
    namespace = given["namespace"]
    name = stored_name(store, found, namespace, name)
    whole = _stored(store, found, namespace, name)
    there = whole.get("metadata", {}).get("labels") or {}
    wanted: dict[str, JSON] = {}
    for text in given["labels"]:
        key, value = _label(text, remove=given["remove"])
        if value is None and key not in there:
            raise BadInput(f"{found.name} {name} has no label {key}", fix=_labels_there(there))
        if value is not None and there.get(key, value) != value and not given["overwrite"]:
            raise BadInput(
                f"{found.name} {name} has the label {key}={there[key]}", fix="add --overwrite"
            )
        wanted[key] = value
    after = merged(whole, {"metadata": {"labels": wanted}})
    _put(store, found, (namespace, name), after, dry_run=given["dry_run"], done="labelled")


def _label(text: str, *, remove: bool) -> tuple[str, str | None]:
    """Key and value; None takes the label away."""
    key, given, value = text.partition("=")
    if remove and not given:
        return key.removesuffix("-"), None
    if not given and key.endswith("-"):
        return key.removesuffix("-"), None
    if not given or remove or not key:
        fix = "write KEY alone" if remove else "write KEY=VALUE, or KEY- to take it away"
        raise BadInput(f"{text!r} is no label", fix=fix)
    return key, value


def _labels_there(there: dict[str, str]) -> str:
    return f"it has {', '.join(f'{k}={v}' for k, v in there.items()) or 'none'}"


def _parsed(patch: Patch) -> Any:
    wanted, called = (
        (list, "a list of operations") if patch.type == "json" else (dict, "one mapping")
    )
    documents = parse_documents(patch.text, "--patch")
    if len(documents) != 1 or not isinstance(documents[0].value, wanted):
        example = '[{"op": …}]' if patch.type == "json" else '{"spec": {…}}'
        raise BadInput(f"--patch must be {called}", fix=f"write it like {example}")
    return documents[0].value


def _operated(whole: dict[str, Any], operations: Sequence[JSON]) -> Any:
    """The resource after a JSON patch (RFC 6902)."""
    import jsonpatch
    import jsonpointer

    try:
        return jsonpatch.JsonPatch(operations).apply(whole)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        raise BadInput(
            f"--patch cannot be carried out: {error}",
            fix='write it like [{"op": "replace", "path": "/spec/natOutgoing", "value": true}]',
        ) from None
    except (TypeError, AttributeError, KeyError) as error:
        # The library trusts the shape of an operation.
        raise BadInput(f"--patch is no list of operations: {error}", fix="see RFC 6902") from None


def _put(
    store: Store, kind: Kind, place: tuple[str, str], after: JSON, *, dry_run: bool, done: str
) -> None:  # fmt: skip
    """Write one resource back, checked as if the whole had been written by hand."""
    # Written as text, so that a fault has a line, and a value of the wrong type is told as one.
    namespace, name = place
    documents = parse_documents(output(after, "yaml"), f"{kind.name} {name}")
    named = [d.value for d in documents if isinstance(d.value, dict)]
    if [(d.get("metadata") or {}).get("name") for d in named] != [name]:
        raise BadInput(f"{kind.name} {name} cannot get another name", fix="create a new resource")
    change_documents(store, documents, namespace, dry_run=dry_run, done=done)


def _stored(store: Store, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
    """One resource as JSON, with its revision.

    Raises:
        NotFound: there is none.
    """
    if kind.read_only is not None:
        raise BadInput(f"{kind.name} cannot be changed: {kind.read_only}")
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
