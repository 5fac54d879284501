"""From a plugin's raw call to a checked request, and from a result back to its JSON.

Pure, and total: whatever bytes come in, the outcome is a `Request` or a `CallRefused`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from podwire.model.cni import (
    LATEST,
    NETNS_ERROR,
    NO_DEMAND,
    STDIN_LIMIT,
    VERSIONS,
    Answer,
    CallRefused,
    Code,
    Command,
    NetworkConfig,
    Pod,
    Request,
    code_of,
)
from podwire.model.cnidemand import parse_demand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.errors import PodwireError
    from podwire.model.cni import Call, Result
    from podwire.model.resource import JSON, Wire

NAME_LIMIT = 128
"""Longest container ID and network name: both end up in keys and in a 255-byte interface alias."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_INTERFACE: Final = re.compile(r"[!-~]{1,15}")
"""Printable ASCII; IFNAMSIZ leaves 15 bytes."""
_POD_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.\-]{0,251}[A-Za-z0-9])?")

_NEEDED: Final[Mapping[Command, tuple[str, ...]]] = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.GC: (),
    Command.STATUS: (),
    Command.VERSION: (),
}
_SINCE: Final[Mapping[Command, str]] = {
    Command.CHECK: "0.4.0",
    Command.GC: "1.1.0",
    Command.STATUS: "1.1.0",
}
VALID_ATTACHMENTS = "cni.dev/valid-attachments"


def parse_call(call: Call) -> Request:
    """Check a call in the order a person would repair it: command, JSON, version, variables, rest.

    Raises:
        CallRefused: with the code for the runtime; the message names the variable or field.
    """
    command = _command(call.environment)
    document = parse_document(call.stdin)
    config = _config(document, command)
    _check_environment(call.environment, command)
    return _request(command, config, call.environment, document)


def _command(environment: Mapping[str, str]) -> Command:
    name = environment.get("CNI_COMMAND", "")
    try:
        return Command(name)
    except ValueError:
        words = "is not set" if not name else f"{_shown(name)} is not a command"
        raise CallRefused(
            Code.ENVIRONMENT, f"CNI_COMMAND {words}", fix=f"set one of {', '.join(Command)}"
        ) from None


def parse_document(stdin: bytes) -> Wire:
    """The network configuration as a JSON object.

    Raises:
        CallRefused: code 6; it is empty, too long, not JSON or not an object.
    """
    if len(stdin) > STDIN_LIMIT:
        raise CallRefused(
            Code.JSON,
            f"the network configuration on standard input is longer than {STDIN_LIMIT} bytes",
            fix="pass a smaller configuration",
        )
    if not stdin.strip():
        raise CallRefused(
            Code.JSON,
            "standard input is empty",
            fix="pass the network configuration as JSON on standard input",
        )
    try:
        document: JSON = msgspec.json.decode(stdin)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallRefused(
            Code.JSON,
            f"the network configuration on standard input is not JSON: {error}",
            fix="correct the JSON",
        ) from None
    if not isinstance(document, dict):
        raise CallRefused(
            Code.JSON,
            f"the network configuration is a JSON {type(document).__name__}, not an object",
            fix='write {"cniVersion": …, "name": …, "type": "podwire"}',
        )
    return document


def _config(document: Wire, command: Command) -> NetworkConfig:
    version = _version(document, command)
    previous = document.get("prevResult")
    if previous is not None and not isinstance(previous, dict):
        raise CallRefused(
            Code.CONFIG, "prevResult is not an object", fix="pass the result of ADD unchanged"
        )
    if previous is None and command is Command.CHECK:
        raise CallRefused(
            Code.CONFIG, "prevResult is missing", fix="CHECK needs the result of ADD as prevResult"
        )
    return NetworkConfig(
        version=version,
        name=network_name(document),
        previous=_checked_result(previous),
        valid=_valid_attachments(document) if command is Command.GC else None,
    )


def _version(document: Wire, command: Command) -> str:
    version = document.get("cniVersion")
    if version not in VERSIONS:
        raise CallRefused(
            Code.VERSION,
            "cniVersion is missing"
            if version is None
            else f"cniVersion {_shown(version)} is not supported",
            fix=f"use one of {', '.join(VERSIONS)}",
        )
    since = _SINCE.get(command)
    if since is not None and VERSIONS.index(version) < VERSIONS.index(since):
        raise CallRefused(
            Code.VERSION,
            f"cniVersion {version} has no {command}",
            fix=f"use cniVersion {since} or newer",
        )
    return str(version)


def network_name(document: Wire) -> str:
    """The network's name.

    Raises:
        CallRefused: code 7; missing or with characters that a key cannot carry.
    """
    name = document.get("name")
    if not isinstance(name, str) or not is_container_id(name):
        raise CallRefused(
            Code.CONFIG,
            "the network's name is missing"
            if name is None
            else f"the network's name {_shown(name)} is not valid",
            fix="name it with letters, digits, _ . - and at most "
            f"{NAME_LIMIT} characters, beginning with a letter or digit",
        )
    return name


def _checked_result(previous: Wire | None) -> Wire | None:
    """The lists of a prevResult are lists of objects; everything else passes through unread."""
    for field in ("interfaces", "ips", "routes"):
        value = (previous or {}).get(field)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(item, dict) for item in value)
        ):
            raise CallRefused(
                Code.CONFIG,
                f"prevResult.{field} is not a list of objects",
                fix="pass the result of ADD unchanged",
            )
    return previous


def _valid_attachments(document: Wire) -> frozenset[tuple[str, str]]:
    listed = document.get(VALID_ATTACHMENTS)
    if listed is None:
        # An absent list must never read as an empty one: empty means "remove them all".
        raise CallRefused(
            Code.CONFIG,
            f"{VALID_ATTACHMENTS} is missing",
            fix="GC needs the list of attachments to keep; an empty list removes all",
        )
    valid: set[tuple[str, str]] = set()
    for item in listed if isinstance(listed, list) else [listed]:
        container_id, interface = (
            (item.get("containerID"), item.get("ifname")) if isinstance(item, dict) else (0, 0)
        )
        if not isinstance(container_id, str) or not isinstance(interface, str):
            raise CallRefused(
                Code.CONFIG,
                f"{VALID_ATTACHMENTS} has an entry that is no attachment: {_shown(item)}",
                fix='write [{"containerID": …, "ifname": …}, …]',
            )
        valid.add((container_id, interface))
    return frozenset(valid)


def _check_environment(environment: Mapping[str, str], command: Command) -> None:
    missing = [name for name in _NEEDED[command] if not environment.get(name)]
    if missing:
        raise CallRefused(
            Code.ENVIRONMENT,
            f"{', '.join(missing)} not set",
            fix=f"{command} needs {', '.join(_NEEDED[command])}",
        )
    if not _NEEDED[command]:
        return
    container_id, interface = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
    if not is_container_id(container_id):
        raise CallRefused(
            Code.ENVIRONMENT,
            f"CNI_CONTAINERID {_shown(container_id)} is not a container ID",
            fix=f"use letters, digits, _ . - and at most {NAME_LIMIT} characters, "
            "beginning with a letter or digit",
        )
    if not is_interface_name(interface):
        raise CallRefused(
            Code.ENVIRONMENT,
            f"CNI_IFNAME {_shown(interface)} is not an interface name",
            fix="use 1 to 15 characters without slash, colon, space or %, for example eth0",
        )


def is_interface_name(name: str) -> bool:
    """Whether Linux takes the name for a device (net/core/dev.c, net/ipv4/devinet.c).

    `%` would be read as a pattern to number, `all` and `default` are folders of sysctls.
    """
    return (
        _INTERFACE.fullmatch(name) is not None
        and not set(name) & set("/:%")
        and name not in {".", "..", "all", "default"}
    )


def is_container_id(name: str) -> bool:
    """Whether the specification takes it for a container ID (a network name is judged alike)."""
    return len(name) <= NAME_LIMIT and _NAME.fullmatch(name) is not None


def _request(
    command: Command, config: NetworkConfig, environment: Mapping[str, str], document: Wire
) -> Request:
    if command is Command.STATUS:
        return Request(command=command, config=config, demand=parse_demand(document, {}, ""))
    if command not in {Command.ADD, Command.DEL, Command.CHECK}:
        return Request(command=command, config=config)
    arguments = parse_arguments(environment.get("CNI_ARGS", ""))
    netns = environment.get("CNI_NETNS", "")
    if NETNS_ERROR in environment and command is not Command.DEL:
        raise CallRefused(
            Code.ENVIRONMENT,
            f"CNI_NETNS {_shown(netns)} cannot be opened: {environment[NETNS_ERROR][:60]}",
            fix="pass the path of an existing network namespace",
        )
    pod, container_id = _pod(arguments), environment["CNI_CONTAINERID"]
    title = f"container {container_id}" if pod is None else f"pod {pod.namespace}/{pod.name}"
    return Request(
        command=command,
        config=config,
        container_id=container_id,
        interface=environment["CNI_IFNAME"],
        netns=netns,
        pod=pod,
        demand=parse_demand(document, arguments, title) if command is Command.ADD else NO_DEMAND,
    )


def parse_arguments(text: str) -> Mapping[str, str]:
    """CNI_ARGS, `KEY=value;KEY=value` in any order.

    Raises:
        CallRefused: code 4; a part without `=`, or an unknown key while IgnoreUnknown is not set.
    """
    arguments: dict[str, str] = {}
    for part in filter(None, text.split(";")):
        key, separator, value = part.partition("=")
        if not separator or not key:
            raise CallRefused(
                Code.ENVIRONMENT,
                f"CNI_ARGS has a part that is no KEY=value: {_shown(part)}",
                fix="write KEY=value;KEY=value",
            )
        arguments[key] = value
    tolerant = arguments.get("IgnoreUnknown", "").lower() in {"1", "true", "yes", "on"}
    unknown = [
        key
        for key in arguments
        if key not in {"IgnoreUnknown", "IP", "MAC"} and not key.startswith("K8S_POD_")
    ]
    if unknown and not tolerant:
        raise CallRefused(
            Code.ENVIRONMENT,
            f"CNI_ARGS has unknown keys: {_shown(', '.join(unknown))}",
            fix="remove them or add IgnoreUnknown=1",
        )
    return arguments


def _pod(arguments: Mapping[str, str]) -> Pod | None:
    namespace, name = arguments.get("K8S_POD_NAMESPACE"), arguments.get("K8S_POD_NAME")
    if not namespace or not name:
        return None
    for key, value in (("K8S_POD_NAMESPACE", namespace), ("K8S_POD_NAME", name)):
        if _POD_NAME.fullmatch(value) is None:
            raise CallRefused(
                Code.ENVIRONMENT,
                f"CNI_ARGS {key} {_shown(value)} is not a Kubernetes name",
                fix="use lower-case letters, digits, - and .",
            )
    return Pod(namespace=namespace, name=name)


def _shown(value: object) -> str:
    """A value inside a message: quoted, and never longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"


def asked_version(stdin: bytes) -> str:
    """The version an answer is written in: the one asked for if we speak it, else our newest."""
    try:
        version = parse_document(stdin).get("cniVersion")
    except CallRefused:
        return LATEST
    return str(version) if version in VERSIONS else LATEST


def render_error(error: PodwireError, version: str, code: Code | None = None) -> Answer:
    """The error object a runtime reads from standard output."""
    told: dict[str, JSON] = {
        "cniVersion": version,
        "code": int(code_of(error) if code is None else code),
        "msg": error.message,
    }
    if error.fix is not None:
        told["details"] = error.fix
    return Answer(code=1, stdout=msgspec.json.encode(told) + b"\n")


def render_result(result: Result, config: NetworkConfig) -> Answer:
    """The result of an ADD in the very version asked for, laid over what came before in the chain.

    Plugins before us keep their interfaces, addresses, routes and DNS; ours come after them.
    """
    told: dict[str, JSON] = {**(config.previous or {}), "cniVersion": config.version}
    before = list(told.get("interfaces") or ())
    inside: dict[str, JSON] = {
        "name": result.interface,
        "mac": result.mac,
        "sandbox": result.sandbox,
    }
    if config.at_least("1.0.0"):
        inside["mtu"] = result.mtu
    told["interfaces"] = [*before, {"name": result.host_interface}, inside]
    told["ips"] = list(told.get("ips") or ())
    for address in result.addresses:
        item: dict[str, JSON] = {"interface": len(before) + 1, "address": str(address)}
        if not config.at_least("1.0.0"):
            # Up to 0.4.0 an address says its family; 1.0.0 dropped the field.
            item["version"] = str(address.version)
        told["ips"].append(item)
    return Answer(stdout=msgspec.json.encode(told) + b"\n")


def render_versions(version: str) -> Answer:
    """The answer to VERSION."""
    return Answer(
        stdout=msgspec.json.encode({"cniVersion": version, "supportedVersions": VERSIONS}) + b"\n"
    )
