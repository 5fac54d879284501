"""Where a lab keeps its things, on a tmpfs that only its own world sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATE = Path("/run/podwire-lab")
DATASTORE = STATE / "datastore.db"
CONTROL = STATE / "keeper.sock"
LOCK = STATE / "lock"
"""Held (flock) while somebody makes or deletes pods."""
PROGRAMS = STATE / "bin"
"""Holds `podwire`, this very one; first in the PATH of everything run in the lab."""
NETWORK = "k8s-pod-network"
"""Name of the CNI network."""


@dataclass(frozen=True, slots=True)
class NodePaths:
    """One node's files; the paths are the same everywhere in the lab."""

    node: str

    @property
    def directory(self) -> Path:
        """All below is in here."""
        return STATE / "nodes" / self.node

    @property
    def socket(self) -> Path:
        """Where the agent listens."""
        return self.directory / "agent.sock"

    @property
    def config(self) -> Path:
        """The agent's configuration."""
        return self.directory / "podwire.yaml"

    @property
    def spool(self) -> Path:
        """Where the plugin leaves a DEL nobody answered."""
        return self.directory / "cni-spool"

    @property
    def cni_config(self) -> Path:
        """The network configuration list of a runtime."""
        return self.directory / "net.d" / "10-podwire.conflist"

    @property
    def cni_programs(self) -> Path:
        """CNI_PATH: holds podwire-cni."""
        return STATE / "cni-bin"

    @property
    def netns(self) -> Path:
        """The node's network namespace."""
        return Path("/run/netns") / self.node

    @property
    def log(self) -> Path:
        """What the agent prints."""
        return self.directory / "agent.log"

    @property
    def bird_config(self) -> Path:
        """What the agent tells BIRD."""
        return self.directory / "bird.conf"

    @property
    def bird_socket(self) -> Path:
        """Where BIRD listens for commands."""
        return self.directory / "bird.ctl"

    @property
    def bird_log(self) -> Path:
        """What BIRD prints."""
        return self.directory / "bird.log"

    @property
    def health_socket(self) -> Path:
        """Where the agent serves health and metrics."""
        return self.directory / "health.sock"

    @property
    def secrets(self) -> Path:
        """Passwords of BGP sessions."""
        return self.directory / "secrets"


def agent_config_text(node: str) -> str:
    """The agent's configuration file."""
    paths = NodePaths(node)
    return (
        f"datastore:\n  type: sqlite\n  path: {DATASTORE}\n"
        f"agentSocket: {paths.socket}\nspoolDir: {paths.spool}\n"
        f"birdConfig: {paths.bird_config}\nbirdSocket: {paths.bird_socket}\n"
        f"secretsDir: {paths.secrets}\nhealthAddress: {paths.health_socket}\n"
    )


def cni_config(node: str) -> dict[str, object]:
    """The network configuration list."""
    paths = NodePaths(node)
    plugin = {
        "type": "podwire",
        "agentSocket": str(paths.socket),
        "spoolDir": str(paths.spool),
    }
    return {"cniVersion": "1.1.0", "name": NETWORK, "plugins": [plugin]}
