"""The agent's configuration file: YAML, every key known, every mistake with its line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import yaml

from podwire.drivers.yamltree import STRING, Spot, read_documents
from podwire.errors import BadInput
from podwire.model.addressing import parse_interface
from podwire.model.config import (
    AgentConfig,
    DatastoreConfig,
    EtcdConfig,
    parse_endpoint,
    parse_health_address,
)
from podwire.model.detection import Detection, parse_detection
from podwire.model.link import LARGEST_MTU, SMALLEST_MTU
from podwire.model.nearest import suggestion
from podwire.model.shapes import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.model.addressing import IPInterface
    from podwire.model.config import HealthAddress

KEYS = (
    *("address", "addressDetection", "agentSocket", "birdConfig", "birdSocket", "datastore"),
    *("healthAddress", "interface", "leakGracePeriod", "leakScanPeriod", "mtu", "mtuFollow"),
    *("nodeName", "resyncPeriod", "secretsDir", "spoolDir"),
)
DATASTORE_KEYS = {
    "sqlite": ("path", "type"),
    "etcd": ("caFile", "certFile", "endpoints", "keyFile", "passwordFile", "type", "username"),
}
PREFIX = "PODWIRE_"
OTHER_VARIABLES = ("PODWIRE_CONFIG", "PODWIRE_DEBUG")
"""Those that stand for no key of the file."""
SHORTEST_PERIOD_S = 1.0
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s/:]+):[0-9]{1,5}")
_SERVICE = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_[0-9]+_[A-Z]+.*)?$")
"""What Kubernetes tells every container of Services, whose names we do not choose."""


def load_agent_config(
    path: Path | None, node: str, environment: Mapping[str, str] = MappingProxyType({})
) -> AgentConfig:
    """Read the agent's configuration file (None: there is none) for the node of that name.

    Without a name its `nodeName` counts; without that the node has none (`on_this_host`).
    What the environment says (`agentSocket` is PODWIRE_AGENT_SOCKET there) counts more than the
    file. A lab's agents must not obey their user's environment, so it has to be passed in.

    Raises:
        BadInput: the file cannot be read, is no YAML, has an unknown or double key or a value of
            the wrong type; the message begins with file and line, or with the variable.
    """
    documents = [] if path is None else read_documents(_read(path), str(path))
    fields = _known(documents[0], KEYS) if documents else {}
    refuse_unknown_variables(environment)
    fields |= _given_by(environment)
    if place := environment.get(variable_of("datastore")):
        datastore = datastore_at(place, environment)
    else:
        datastore = _datastore(fields)
    start = AgentConfig(node=node or _node_name(fields))
    _require_one_of(fields, ("address", "interface", "addressDetection"))
    config = AgentConfig(
        node=start.node,
        datastore=datastore,
        agent_socket=_text(fields, "agentSocket", start.agent_socket),
        spool_dir=_text(fields, "spoolDir", start.spool_dir),
        secrets_dir=_text(fields, "secretsDir", start.secrets_dir),
        bird_config=_text(fields, "birdConfig", start.bird_config),
        bird_socket=_text(fields, "birdSocket", start.bird_socket),
        address=_address(fields),
        interface=_text(fields, "interface", "") or None,
        detection=_detection(fields),
        mtu=_mtu(fields),
        follow_mtu=_flag(fields, "mtuFollow"),
        health_address=_health_address(fields, start.health_address),
        resync_period_s=_seconds(fields, "resyncPeriod", start.resync_period_s),
        leak_scan_period_s=_seconds(fields, "leakScanPeriod", start.leak_scan_period_s),
        leak_grace_period_s=_seconds(
            fields, "leakGracePeriod", start.leak_grace_period_s, may_be_off=True
        ),
    )
    scan_s, grace_s = config.leak_scan_period_s, config.leak_grace_period_s
    if 0 < grace_s < 2 * scan_s:
        name = "leakGracePeriod" if "leakGracePeriod" in fields else "leakScanPeriod"
        raise fields[name].refuse(
            f"lets a grace period of {grace_s:g} s be shorter than two scans of {scan_s:g} s",
            fix="make leakGracePeriod longer, or leakScanPeriod shorter",
        )
    return config


def on_this_host(config: AgentConfig, host: str) -> AgentConfig:
    """The configuration of an agent that runs here: a node without a name has the host's.

    The whole of it in lower case, as kubelet and Calico call a node by themselves.

    Raises:
        BadInput: the host's name is no name for a node.
    """
    if config.node:
        return config
    name = host.strip().lower()
    try:
        check_name(name)
    except BadInput as error:
        raise BadInput(
            f"the host's name: {error.message}",
            fix="name the node: nodeName in the agent's configuration, or --node",
        ) from None
    former = host.split(".", 1)[0]
    return replace(config, node=name, former_name=None if former == name else former)


def variable_of(key: str) -> str:
    """The environment variable that stands for a key of the file, `datastore.caFile` included."""
    return PREFIX + re.sub(r"([A-Z])", r"_\1", key.replace(".", "_")).upper()


def refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """A variable that is misspelt would silently count for nothing.

    Raises:
        BadInput: a variable begins with PODWIRE_ and is none of ours.
    """
    known = [*map(variable_of, (*KEYS, *_datastore_paths())), *OTHER_VARIABLES]
    for name in sorted(environment):
        ours = name.startswith(PREFIX) and not name.startswith(f"{PREFIX}TEST_")
        if ours and name not in known and _SERVICE.search(name) is None:
            fix = suggestion(name, known, f"known are {', '.join(known)}")
            raise BadInput(f"the environment variable {name} is not known", fix=fix)


def _datastore_paths() -> list[str]:
    keys = dict.fromkeys(key for each in DATASTORE_KEYS.values() for key in each)
    return [f"datastore.{key}" for key in keys]


def _given_by(environment: Mapping[str, str]) -> dict[str, Spot]:
    """The keys that variables stand for; an empty one stands for nothing."""
    fields = {}
    for key in (*KEYS, *_datastore_paths()):
        name = variable_of(key)
        if key != "datastore" and environment.get(name):
            mark = yaml.Mark(name, 0, 0, 0, None, 0)
            text = environment[name]
            node: yaml.Node = yaml.ScalarNode(STRING, text, mark, mark)
            if key == "datastore.endpoints":
                parts = [yaml.ScalarNode(STRING, part, mark, mark) for part in text.split(",")]
                node = yaml.SequenceNode("", parts, mark, mark)
            fields[key] = Spot(node, name, key)
    return fields


def datastore_at(place: str, environment: Mapping[str, str]) -> DatastoreConfig:
    """The datastore somebody names on a command line: a file, or the URLs of etcd.

    The rest of what etcd needs comes from the variables calicoctl reads: ETCD_CA_CERT_FILE,
    ETCD_CERT_FILE, ETCD_KEY_FILE, ETCD_USERNAME and ETCD_PASSWORD, and from ETCD_PASSWORD_FILE.

    Raises:
        BadInput: it is no URL, or a variable lacks the one that belongs to it.
    """
    if "://" not in place:
        if _is_endpoint(place):
            raise BadInput(f"datastore {place} is no file", fix=_meant(place))
        return DatastoreConfig(path=place)
    _refuse_half(environment)
    etcd = EtcdConfig(
        endpoints=tuple(map(parse_endpoint, place.split(","))),
        ca_file=environment.get("ETCD_CA_CERT_FILE") or None,
        cert_file=environment.get("ETCD_CERT_FILE") or None,
        key_file=environment.get("ETCD_KEY_FILE") or None,
        username=environment.get("ETCD_USERNAME") or None,
        password_file=environment.get("ETCD_PASSWORD_FILE") or None,
        password=environment.get("ETCD_PASSWORD") or None,
    )
    return DatastoreConfig(type="etcd", etcd=etcd)


def _refuse_half(environment: Mapping[str, str]) -> None:
    """Variables of etcd that mean nothing alone, or two of one meaning."""
    certificate, key, user = "ETCD_CERT_FILE", "ETCD_KEY_FILE", "ETCD_USERNAME"
    passwords = ("ETCD_PASSWORD", "ETCD_PASSWORD_FILE")
    given = {name for name in environment if environment[name]}
    needs = [(certificate, (key,)), (key, (certificate,)), (user, passwords)]
    needs += [(each, (user,)) for each in passwords]
    for here, missing in needs:
        if here in given and given.isdisjoint(missing):
            names = " or ".join(missing)
            raise BadInput(f"{here} needs {names} beside it", fix=f"set {names}, or neither")
    if given.issuperset(passwords):
        raise BadInput(f"{' and '.join(passwords)} are both set", fix="keep one of them")


def _is_endpoint(place: str) -> bool:
    """Whether somebody forgot the scheme: a new file of that name would be an empty datastore."""
    parts = place.split(",")
    return all(map(_HOST_PORT.fullmatch, parts)) and not Path(place).exists()


def _meant(place: str) -> str:
    return f"did you mean {','.join(f'https://{part}' for part in place.split(','))}?"


def _datastore(whole: Mapping[str, Spot]) -> DatastoreConfig:
    """The datastore of the file, its keys each overridden by their variable."""
    varied = {path.partition(".")[2]: spot for path, spot in whole.items() if "." in path}
    spot = whole.get("datastore")
    given = {} if spot is None or spot.absent else spot.mapping()
    given |= varied
    kind = _text(given, "type", "sqlite")
    if kind not in DATASTORE_KEYS:
        fix = f"write one of: {', '.join(DATASTORE_KEYS)}"
        raise given["type"].refuse(
            f"{kind!r} is unknown", fix=suggestion(kind, DATASTORE_KEYS, fix)
        )
    fields = _all_known(given, DATASTORE_KEYS[kind])
    if kind == "sqlite":
        path = _text(fields, "path", DatastoreConfig().path)
        if _is_endpoint(path):
            fix = f"{_meant(path)} Write `type: etcd` and `endpoints`"
            raise fields["path"].refuse(f"{path} is no file", fix=fix)
        return DatastoreConfig(path=path)
    for one, other in (("certFile", "keyFile"), ("username", "passwordFile")):
        for here, missing in ((one, other), (other, one)):
            if here in fields and missing not in fields:
                raise fields[here].refuse(f"needs {missing} beside it", fix=f"add {missing}")
    return DatastoreConfig(
        type=kind,
        etcd=EtcdConfig(
            endpoints=_endpoints(spot or given["type"], fields),
            ca_file=_text(fields, "caFile", "") or None,
            cert_file=_text(fields, "certFile", "") or None,
            key_file=_text(fields, "keyFile", "") or None,
            username=_text(fields, "username", "") or None,
            password_file=_text(fields, "passwordFile", "") or None,
        ),
    )


def _endpoints(spot: Spot, fields: Mapping[str, Spot]) -> tuple[str, ...]:
    found = fields["endpoints"].sequence() if "endpoints" in fields else []
    if not found:
        raise spot.refuse("lacks endpoints", fix="name them: `endpoints: [https://HOST:2379]`")
    endpoints = []
    for each in found:
        text = each.text()
        try:
            endpoints.append(parse_endpoint(text))
        except BadInput as error:
            raise each.refuse(error.message, fix=error.fix) from None
    return tuple(endpoints)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(
            f"{path}: there is no such file", fix="name one with --config, or write it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None


def _known(spot: Spot, known: Sequence[str]) -> dict[str, Spot]:
    """The keys of a mapping that are given, none of them unknown."""
    return _all_known({} if spot.absent else spot.mapping(), known)


def _all_known(fields: dict[str, Spot], known: Sequence[str]) -> dict[str, Spot]:
    for key, value in fields.items():
        if key not in known:
            fix = suggestion(key, known, f"known keys are {', '.join(known)}")
            raise value.refuse("is not a known key", fix=fix)
    return fields


def _text(fields: Mapping[str, Spot], key: str, default: str) -> str:
    text = fields[key].text() if key in fields else default
    if not text and default:
        raise fields[key].refuse("is empty", fix="leave the key out for its default")
    return text


def _node_name(fields: Mapping[str, Spot]) -> str:
    text = _text(fields, "nodeName", "")
    try:
        if "nodeName" in fields:
            check_name(text)
    except BadInput as error:
        raise fields["nodeName"].refuse(error.message, fix=error.fix) from None
    return text


def _seconds(
    fields: Mapping[str, Spot], key: str, default: float, *, may_be_off: bool = False
) -> float:
    """Seconds as a number, or with a unit: `10`, `10s`, `500ms`, `1m`; 0 where that means never."""
    if key not in fields:
        return default
    seconds = parse_seconds(str(fields[key].node.value))
    if seconds == 0 and may_be_off:
        return 0.0
    if seconds is None or seconds < SHORTEST_PERIOD_S:
        raise fields[key].refuse(
            f"must be a time of at least {SHORTEST_PERIOD_S:g} s", fix="write it 10s"
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


def _health_address(
    fields: Mapping[str, Spot], default: HealthAddress | None
) -> HealthAddress | None:
    if "healthAddress" not in fields:
        return default
    text = fields["healthAddress"].text()
    try:
        return parse_health_address(text)
    except BadInput as error:
        raise fields["healthAddress"].refuse(error.message, fix=error.fix) from None


def _address(fields: Mapping[str, Spot]) -> IPInterface | None:
    text = _text(fields, "address", "")
    if not text:
        return None
    if "/" not in text:
        raise fields["address"].refuse(
            f"{text!r} lacks its prefix length", fix="write it 192.168.26.103/24"
        )
    try:
        return parse_interface(text)
    except BadInput as error:
        raise fields["address"].refuse(error.message, fix=error.fix) from None


def _require_one_of(fields: Mapping[str, Spot], keys: Sequence[str]) -> None:
    """Several ways to say one thing: two of them would contradict each other sooner or later."""
    given = [key for key in keys if key in fields]
    if len(given) > 1:
        raise fields[given[-1]].refuse(
            f"and {given[0]} are both given",
            fix="keep one: the address itself, the device that carries it, or how to find it",
        )


def _detection(fields: Mapping[str, Spot]) -> Detection:
    text = _text(fields, "addressDetection", "")
    try:
        return parse_detection(text) if text else Detection()
    except BadInput as error:
        raise fields["addressDetection"].refuse(error.message, fix=error.fix) from None


def _mtu(fields: Mapping[str, Spot]) -> int | None:
    if "mtu" not in fields:
        return None
    text = str(fields["mtu"].node.value)
    if text.isascii() and text.isdecimal() and SMALLEST_MTU <= int(text) <= LARGEST_MTU:
        return int(text)
    raise fields["mtu"].refuse(
        f"must be a number of bytes, {SMALLEST_MTU} to {LARGEST_MTU}",
        fix="leave the key out for what fits the cluster",
    )


def _flag(fields: Mapping[str, Spot], key: str) -> bool:
    words = {"true": True, "false": False}
    text = str(fields[key].node.value).lower() if key in fields else "false"
    if text not in words:
        raise fields[key].refuse("must be true or false", fix=f"write {key}: true")
    return words[text]
