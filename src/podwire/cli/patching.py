"""`podwire patch|label`: a few fields of one stored resource."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from podwire.cli.applying import PAUSE_S, TRIES
from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.editing import change_documents, dry_run_option
from podwire.cli.kinds import find_kind
from podwire.cli.options import gathered
from podwire.cli.policy_names import stored_name
from podwire.cli.resources import absent, kind_argument, name_argument, namespace_option
from podwire.cli.tables import output
from podwire.cli.yamlfile import parse_documents
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.errors import BadInput, Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    alter = _operated if patch.type == "json" else merged
    place = (namespace, stored_name(store, found, namespace, name))
    _change(store, found, place, lambda w: alter(w, change), dry_run=dry_run, done="patched")


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
    labels = [_label(text, remove=given["remove"]) for text in given["labels"]]

    def alter(whole: dict[str, Any]) -> JSON:
        there = whole.get("metadata", {}).get("labels") or {}
        for key, value in labels:
            if value is None and key not in there:
                raise BadInput(f"{found.name} {name} has no label {key}", fix=_labels_there(there))
            if value is not None and there.get(key, value) != value and not given["overwrite"]:
                raise BadInput(
                    f"{found.name} {name} has the label {key}={there[key]}", fix="add --overwrite"
                )
        return merged(whole, {"metadata": {"labels": dict(labels)}})

    namespace = given["namespace"]
    place = (namespace, stored_name(store, found, namespace, name))
    _change(store, found, place, alter, dry_run=given["dry_run"], done="labelled")


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

    after: Any = whole
    try:
        for operation in jsonpatch.JsonPatch(operations):
            try:
                after = jsonpatch.JsonPatch([operation]).apply(after)
            except jsonpatch.JsonPatchTestFailed:
                raise _failed(after, operation) from None
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        raise BadInput(
            f"--patch cannot be carried out: {error}",
            fix='write it like [{"op": "replace", "path": "/spec/natOutgoing", "value": true}]',
        ) from None
    except (TypeError, AttributeError, KeyError) as error:
        # The library trusts the shape of an operation.
        raise BadInput(f"--patch is no list of operations: {error}", fix="see RFC 6902") from None
    return after


def _failed(whole: Any, operation: dict[str, Any]) -> BadInput:
    """A test of a JSON patch that did not hold, in the words of JSON."""
    import jsonpointer

    path = operation["path"]
    absent = object()
    found = jsonpointer.resolve_pointer(whole, path, absent)
    what = "there is nothing" if found is absent else f"it is {json.dumps(found)}"
    return BadInput(
        f"--patch cannot be carried out: {path} is to be {json.dumps(operation.get('value'))},"
        f" and {what}",
        fix="get the resource again, and repeat your change",
    )


def _change(
    store: Store,
    kind: Kind,
    place: tuple[str, str],
    alter: Callable[[dict[str, Any]], JSON],
    *,
    dry_run: bool,
    done: str,
) -> None:
    """Read one resource, alter it, write it back; again where others wrote it meanwhile.

    Raises:
        Conflict: the change itself names a revision, and it is another one; or others write it
            all the time.
    """
    for number in range(TRIES):
        SystemClock().sleep(SystemDice().uniform(0, number * PAUSE_S))
        whole = _stored(store, kind, *place)
        after = alter(whole)
        try:
            _put(store, kind, place, after, dry_run=dry_run, done=done)
        except Conflict:
            if _revision(after) not in {None, _revision(whole)}:
                raise
        else:
            return
    raise Conflict(f"others keep changing {kind.name} {place[1]}", fix="try again")


def _revision(whole: JSON) -> JSON:
    metadata = whole.get("metadata") if isinstance(whole, dict) else None
    return metadata.get("resourceVersion") if isinstance(metadata, dict) else None


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
