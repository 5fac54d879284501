"""The agent's configuration file: YAML, every key known, every mistake with its line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import yaml

from podwire.errors import BadInput
from podwire.model.addressing import parse_interface
from podwire.model.config import AgentConfig, DatastoreConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPInterface

Place: TypeAlias = tuple[Path, int]
Fields: TypeAlias = dict[str, tuple[yaml.Node, Place]]

KEYS = ("address", "agentSocket", "datastore", "interface", "resyncPeriod", "spoolDir")
DATASTORE_KEYS = ("path", "type")
SHORTEST_RESYNC_S = 1.0


def load_agent_config(path: Path, node: str) -> AgentConfig:
    """Read the agent's configuration file for the node of that name.

    Raises:
        BadInput: the file cannot be read, is no YAML, has an unknown or double key or a value of
            the wrong type; the message begins with file and line.
    """
    fields = _mapping(_compose(path), (path, 1), KEYS)
    datastore = DatastoreConfig()
    if "datastore" in fields:
        inner = _mapping(fields["datastore"][0], fields["datastore"][1], DATASTORE_KEYS)
        datastore = DatastoreConfig(
            type=_text(inner, "type", datastore.type), path=_text(inner, "path", datastore.path)
        )
    start = AgentConfig(node=node)
    address, interface = _address(fields), _text(fields, "interface", "") or None
    if address is not None and interface is not None:
        raise _wrong(
            fields["interface"][1],
            "both address and interface are given",
            fix="keep one: the address itself, or the device that carries it",
        )
    return AgentConfig(
        node=node,
        datastore=datastore,
        agent_socket=_text(fields, "agentSocket", start.agent_socket),
        spool_dir=_text(fields, "spoolDir", start.spool_dir),
        address=address,
        interface=interface,
        resync_period_s=_seconds(fields, "resyncPeriod", start.resync_period_s),
    )


def _compose(path: Path) -> yaml.Node | None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(
            f"{path}: there is no such file", fix="name one with --config, or write it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise _wrong((path, line), f"is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: is not YAML: {error}") from None


def _mapping(node: yaml.Node | None, place: Place, known: tuple[str, ...]) -> Fields:
    """The keys of a mapping; an empty document is an empty mapping."""
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
        return {}
    path = place[0]
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(_place(path, node), "a mapping of keys to values is expected here")
    fields: Fields = {}
    for key_node, value in node.value:
        here = _place(path, key_node)
        key = str(key_node.value)
        if key in fields:
            raise _wrong(here, f"key {key!r} stands here a second time", fix="remove one of them")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            names = ", ".join(known)
            fix = f"did you mean {near[0]!r}?" if near else f"known keys are {names}"
            raise _wrong(here, f"key {key!r} is unknown", fix=fix)
        fields[key] = (value, here)
    return fields


def _text(fields: Mapping[str, tuple[yaml.Node, Place]], key: str, default: str) -> str:
    if key not in fields:
        return default
    node, place = fields[key]
    if not isinstance(node, yaml.ScalarNode) or not node.tag.endswith(":str") or not node.value:
        raise _wrong(place, f"{key} must be a text")
    return str(node.value)


def _seconds(fields: Fields, key: str, default: float) -> float:
    """Seconds as a number, or with a unit: `10`, `10s`, `500ms`, `1m`."""
    if key not in fields:
        return default
    node, place = fields[key]
    seconds = parse_seconds(str(node.value)) if isinstance(node, yaml.ScalarNode) else None
    if seconds is None or seconds < SHORTEST_RESYNC_S:
        raise _wrong(
            place, f"{key} must be a time of at least {SHORTEST_RESYNC_S:g} s", fix="write it 10s"
        )
    return seconds


def parse_seconds(text: str) -> float | None:
    """Read a time: seconds as a number, or with the unit ms, s, m or h; None when it is none."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)):
        if text.endswith(unit):
            try:
                value = float(text.removesuffix(unit)) * factor
            except ValueError:
                return None
            return value if 0 <= value < float("inf") else None
    return None


def _address(fields: Fields) -> IPInterface | None:
    text = _text(fields, "address", "")
    if not text:
        return None
    place = fields["address"][1]
    if "/" not in text:
        raise _wrong(
            place, f"address {text!r} lacks its prefix length", fix="write it 192.168.26.103/24"
        )
    try:
        return parse_interface(text)
    except BadInput as error:
        raise _wrong(place, error.message, fix=error.fix) from None


def _place(path: Path, node: yaml.Node) -> Place:
    return path, node.start_mark.line + 1


def _wrong(place: Place, message: str, *, fix: str | None = None) -> BadInput:
    return BadInput(f"{place[0]}:{place[1]}: {message}", fix=fix)
