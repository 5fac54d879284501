"""The agent's own settings: where its datastore, socket and spool are, and which address is its."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.model.detection import Detection

if TYPE_CHECKING:
    from podwire.model.addressing import IPInterface

DEFAULT_CONFIG = "/etc/podwire/podwire.yaml"
DEFAULT_DATASTORE = "/var/lib/podwire/datastore.db"
DEFAULT_SOCKET = "/run/podwire/agent.sock"
DEFAULT_SPOOL = "/var/lib/podwire/cni-spool"
DEFAULT_SECRETS = "/etc/podwire/secrets"
DEFAULT_BIRD_CONFIG = "/var/lib/podwire/bird.conf"
DEFAULT_BIRD_SOCKET = "/run/podwire/bird.ctl"
DEFAULT_HEALTH_SOCKET = "/run/podwire/health.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """An etcd cluster and who we are to it."""

    endpoints: tuple[str, ...]
    """`https://HOST:PORT`, or `http://` without TLS, or `unix://PATH`; asked in this order."""
    ca_file: str | None = None
    """Who may have signed the servers' certificates; None: the system's authorities."""
    cert_file: str | None = None
    key_file: str | None = None
    username: str | None = None
    password_file: str | None = None
    """Of it only root, or who runs the program, may read."""
    password: str | None = field(default=None, repr=False)
    """The password itself, of the environment: for commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatastoreConfig:
    """Which datastore, and where it is."""

    type: str = "sqlite"
    """sqlite or etcd."""
    path: str = DEFAULT_DATASTORE
    """SQLite's file."""
    etcd: EtcdConfig | None = None

    @property
    def place(self) -> str:
        """Where it is: the file, or the endpoints."""
        return self.path if self.etcd is None else ",".join(self.etcd.endpoints)


_ENDPOINT = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/:]+):[0-9]{1,5}|unix:///\S+")


def parse_endpoint(text: str) -> str:
    """The URL of an etcd endpoint; etcd's own port when none is given.

    Raises:
        BadInput: it is none.
    """
    url = text.strip().rstrip("/")
    if "://" in url and re.search(r"[^/]:[0-9]+$|\]:[0-9]+$", url) is None and url[:4] != "unix":
        url += ":2379"
    if _ENDPOINT.fullmatch(url) is None:
        raise BadInput(f"{text!r} is no endpoint of etcd", fix="write https://HOST:2379")
    return url


_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^\s/:\[\]]*):([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthAddress:
    """Where health and metrics are served: a unix socket, or a TCP port."""

    path: str | None = None
    host: str = ""
    """Empty: every address of the host."""
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_health_address(text: str) -> HealthAddress | None:
    """Read `/PATH`, `HOST:PORT`, `[ADDRESS]:PORT` or `:PORT`; None for `none`.

    Raises:
        BadInput: it is none of these.
    """
    if text == "none":
        return None
    if text.startswith("/"):
        return HealthAddress(path=text)
    found = _HOST_PORT.fullmatch(text)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise BadInput(
            f"{text!r} is no address",
            fix="write /PATH/OF/A.sock, HOST:PORT, [IPv6 ADDRESS]:PORT, :PORT, or none",
        )
    return HealthAddress(host=found[1].strip("[]"), port=int(found[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """What one node's agent is started with."""

    node: str
    former_name: str | None = None
    """What older versions called it by themselves, where nobody has named it; None: the same."""
    datastore: DatastoreConfig = field(default_factory=DatastoreConfig)
    agent_socket: str = DEFAULT_SOCKET
    spool_dir: str = DEFAULT_SPOOL
    address: IPInterface | None = None
    """The node's address with the prefix length of its subnet, as other nodes reach it."""
    interface: str | None = None
    """Take the address from this device."""
    detection: Detection = field(default_factory=Detection)
    """How to find the address where neither of them is given."""
    mtu: int | None = None
    """MTU of pods; None: what gets through between all nodes."""
    follow_mtu: bool = False
    """Whether live pods get a new MTU, too."""
    secrets_dir: str = DEFAULT_SECRETS
    """Passwords of BGP sessions: KEY of secret NAME is the file NAME/KEY, for root's eyes only."""
    bird_config: str = DEFAULT_BIRD_CONFIG
    """The file the agent writes for BIRD, where the cluster's routing is BIRD's."""
    bird_socket: str = DEFAULT_BIRD_SOCKET
    """BIRD's control socket."""
    health_address: HealthAddress | None = HealthAddress(path=DEFAULT_HEALTH_SOCKET)
    """Where health and metrics are served; None: nowhere."""
    resync_period_s: float = 10.0
    """How often what sends no event (sysctls) is looked at again."""
    leak_scan_period_s: float = 60.0
    """How often allocations are compared with the kernel."""
    leak_grace_period_s: float = 900.0
    """How long an address must have been without its pod before it is released, and how long a Node
    must have been deleted before others clear up after it; 0: neither is ever done."""
