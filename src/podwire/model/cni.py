"""CNI's own words as values: commands, codes, configuration, result, and the agent socket's frames.

Source: the CNI specification, versions 0.3.1 to 1.1.0.

The socket between plugin and agent (unix, stream, one call per connection):

1. The agent greets with `GREETING` as soon as it has accepted.
2. The caller sends a frame: four bytes of length (big endian), then the body. A plugin's call is
   `NAME=value` strings that each end in a zero byte, one more zero byte, then standard input as it
   came; the network namespace travels as SCM_RIGHTS with the first byte. A body that begins with
   `{` is a control request in JSON.
3. The agent answers with a frame. To a plugin: one byte of exit code, then what to print. To a
   control request: a JSON object.
4. The plugin confirms with `RECEIVED` before it prints. An ADD that nobody confirms is undone:
   then the caller cannot have seen a result.

No escaping and no JSON on this way: the plugin has to be small in C and quick in Python.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from podwire.errors import (
    AddressTaken,
    BadInput,
    InterfaceExists,
    NoPool,
    PodwireError,
    PoolExhausted,
    Stale,
    Transient,
)
from podwire.model.endpoint import AttachmentKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress, IPInterface, IPNetwork
    from podwire.model.resource import Wire

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = VERSIONS[-1]

GREETING = b"podwire/1\n"
RECEIVED = b"+"
STDIN_LIMIT = 4 << 20
"""Bytes of network configuration a plugin passes on; more is refused with code 6."""
FRAME_LIMIT = 8 << 20
"""Bytes of one frame's body: configuration and environment (at most ARG_MAX) together."""
NETNS_ERROR = "PODWIRE_NETNS_ERROR"
"""Variable a plugin adds when CNI_NETNS could not be opened: the reason, in words."""

_LENGTH = struct.Struct("!I")
FRAME_HEAD = _LENGTH.size


class Command(StrEnum):
    """CNI_COMMAND."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


class Code(IntEnum):
    """Error codes: below 100 the specification's, from 100 ours."""

    VERSION = 1
    ENVIRONMENT = 4
    """Not 3 for an unknown container: that one tells the runtime to skip DEL."""
    IO = 5
    JSON = 6
    CONFIG = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    INTERFACE_EXISTS = 100
    POOL_EXHAUSTED = 101
    NO_POOL = 102
    DIFFERENCE = 103


class CallRefused(BadInput):
    """A plugin call that cannot be carried out as it was made; `code` goes to the runtime."""

    def __init__(self, code: Code, message: str, *, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.code = code


def code_of(error: PodwireError) -> Code:
    """The code a runtime is told for an error of ours."""
    match error:
        case CallRefused():
            return error.code
        case InterfaceExists():
            return Code.INTERFACE_EXISTS
        case PoolExhausted() | AddressTaken():
            return Code.POOL_EXHAUSTED
        case NoPool():
            return Code.NO_POOL
        case Transient() | Stale():
            return Code.TRY_AGAIN
        case BadInput():
            return Code.CONFIG
        case _:
            return Code.IO


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One run of the plugin, unchecked: its CNI_* environment and standard input."""

    environment: Mapping[str, str]
    stdin: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a run of the plugin ends with."""

    code: int = 0
    """Exit code: 0 or 1."""
    stdout: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """The network configuration, as far as it concerns us."""

    version: str
    name: str
    previous: Wire | None = None
    """prevResult: what the plugins before us in the chain have made."""
    valid: frozenset[tuple[str, str]] | None = None
    """GC: (container ID, interface) of `cni.dev/valid-attachments`; None when it is missing."""

    def at_least(self, version: str) -> bool:
        """Whether the caller speaks that version or a newer one."""
        return VERSIONS.index(self.version) >= VERSIONS.index(version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The Kubernetes pod a container belongs to (K8S_POD_NAMESPACE, K8S_POD_NAME)."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one attachment is to get beyond what every pod gets (model/cnidemand.py)."""

    address: IPAddress | None = None
    """This very address, or none at all."""
    pools: tuple[str, ...] | None = None
    """Names or CIDRs of IPPools to try in this order; None lets their selectors decide."""
    mac: str | None = None
    """Of the pod's side; None for a random one."""
    mtu: int | None = None
    """None: what fits the node's encapsulation."""
    sources: tuple[IPNetwork, ...] = ()
    """Further source addresses the pod may send from."""
    forwarding: bool = False
    """The pod may forward packets between its interfaces."""


NO_DEMAND = Demand()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One run of the plugin, checked. GC and STATUS have no container and no interface."""

    command: Command
    config: NetworkConfig
    container_id: str = ""
    interface: str = ""
    netns: str = ""
    """Path as the caller wrote it: only ever printed, never opened."""
    pod: Pod | None = None
    demand: Demand = NO_DEMAND
    """Read for ADD and STATUS only: nothing that is asked for may keep a pod from going."""

    @property
    def key(self) -> AttachmentKey:
        """What the attachment is known by."""
        return AttachmentKey(
            network=self.config.name, container_id=self.container_id, interface=self.interface
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an ADD has made."""

    host_interface: str
    interface: str
    mac: str
    mtu: int
    sandbox: str
    addresses: tuple[IPInterface, ...]


def frame(body: bytes) -> bytes:
    """Put the length before a body."""
    return _LENGTH.pack(len(body)) + body


def frame_length(head: bytes) -> int:
    """Length of the body that follows the four bytes `head`.

    Raises:
        BadInput: longer than `FRAME_LIMIT`.
    """
    length: int = _LENGTH.unpack(head)[0]
    if length > FRAME_LIMIT:
        raise BadInput(f"a frame of {length} bytes is longer than {FRAME_LIMIT}")
    return length


def encode_call(call: Call) -> bytes:
    """Body of a plugin's call."""
    names = "".join(f"{name}={value}\0" for name, value in call.environment.items())
    return names.encode() + b"\0" + call.stdin


def decode_call(body: bytes) -> Call:
    """Read the body of a plugin's call; bytes that are not UTF-8 become replacement characters.

    Raises:
        BadInput: the environment does not end.
    """
    environment: dict[str, str] = {}
    start = 0
    while (end := body.find(b"\0", start)) > start:
        name, _, value = body[start:end].decode(errors="replace").partition("=")
        environment[name] = value
        start = end + 1
    if end < 0:
        raise BadInput("the environment of a plugin call does not end in two zero bytes")
    return Call(environment=environment, stdin=body[end + 1 :])


def encode_answer(answer: Answer) -> bytes:
    """Body of an answer to a plugin."""
    return bytes([answer.code]) + answer.stdout


def decode_answer(body: bytes) -> Answer:
    """Read the body of an answer to a plugin.

    Raises:
        BadInput: the body is empty.
    """
    if not body:
        raise BadInput("the agent's answer is empty")
    return Answer(code=body[0], stdout=body[1:])
