"""`podwire node install` and `uninstall`: what a host needs so that runtimes use the plugin."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from podwire.agent.control import ask
from podwire.cli.agent import config_option, config_path
from podwire.cni.install import install_plugin
from podwire.drivers import hostfiles
from podwire.drivers.config import load_agent_config, parse_seconds
from podwire.drivers.felix import find_felix
from podwire.errors import AgentUnavailable, BadInput, InUse, PodwireError
from podwire.model.cnidemand import CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podwire.model.config import AgentConfig

PLUGIN = "podwire"
CONFLIST = "10-podwire.conflist"
CALICO_CHAINS = ("cali-", "calico")
CLEAN_UP = """iptables-save | grep -v -i cali | iptables-restore
  iptables-legacy-save | grep -v -i cali | iptables-legacy-restore
  nft delete table ip calico; nft delete table ip6 calico"""
OTHER_MANAGERS = {
    "/etc/dhcpcd.conf": "dhcpcd: add `denyinterfaces cali* tunl0 vxlan.calico` to /etc/dhcpcd.conf",
    "/etc/connman/main.conf": "connman: add `cali,tunl0,vxlan.calico` to"
    " NetworkInterfaceBlacklist in /etc/connman/main.conf",
    "/etc/wicked": "wicked: see that it leaves cali*, tunl0 and vxlan.calico alone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where things go."""

    plugins: Path
    networks: Path
    etc: Path

    @property
    def conflist(self) -> Path:
        """The network list; its name sorts before what other networks bring."""
        return self.networks / CONFLIST

    def drop_ins(self) -> Iterator[tuple[str, Path]]:
        """Shipped file and place, for each network manager that is there."""
        if (self.etc / "systemd").is_dir():
            yield "networkd.conf", self.etc / "systemd/networkd.conf.d/podwire.conf"
            yield "networkd.network", self.etc / "systemd/network/10-podwire.network"
        if (self.etc / "NetworkManager").is_dir():
            yield "networkmanager.conf", self.etc / "NetworkManager/conf.d/podwire.conf"

    def units(self) -> Iterator[tuple[str, Path]]:
        """Shipped unit and place, where there is systemd."""
        if (self.etc / "systemd/system").is_dir():
            for name in ("podwire-agent.service", "podwire-bird.service", "podwire-bird.path"):
                yield name, self.etc / "systemd/system" / name


def place_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where things go; it gets a Place."""

    @click.option(
        "--cni-bin-dir",
        type=click.Path(path_type=Path),
        default="/opt/cni/bin",
        show_default=True,
        help="Where the runtime looks for plugins.",
    )
    @click.option(
        "--cni-conf-dir",
        type=click.Path(path_type=Path),
        default="/etc/cni/net.d",
        show_default=True,
        help="Where the runtime looks for networks.",
    )
    @click.option("--etc", type=click.Path(path_type=Path), default="/etc", hidden=True)
    @functools.wraps(command)
    def called(cni_bin_dir: Path, cni_conf_dir: Path, etc: Path, **rest: object) -> None:
        command(Place(plugins=cni_bin_dir, networks=cni_conf_dir, etc=etc), **rest)

    return called


@click.command("install")
@place_options
@click.option("--name", default="k8s-pod-network", show_default=True, help="The network's name.")
@click.option(
    "--cni-version",
    type=click.Choice(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]),
    default="1.0.0",
    show_default=True,
    help="containerd 1.x takes up to 1.0.0.",
)
@click.option(
    "--wait",
    "patience",
    metavar="TIME",
    default="60s",
    show_default=True,
    help="How long the agent may take to get ready.",
)
@click.option("--portmap/--no-portmap", default=True, help="Chain portmap, where it is installed.")
@config_option
def install_command(
    place: Place,
    name: str,
    cni_version: str,
    patience: str,
    portmap: bool,
    config: Path | None,
) -> None:
    """Have this host's container runtime use Podwire.

    Puts the plugin there, keeps network managers off our interfaces and routes, writes systemd
    units (it enables none), waits until the agent is ready, and writes the network list last: from
    that moment on the runtime takes the node for ready.
    """
    settings = load_agent_config(config_path(config), "")
    seconds = parse_seconds(patience)
    if seconds is None:
        raise BadInput(f"--wait {patience!r} is not a time", fix="write it 60s or 5m")
    refuse_beside_calico()
    say(install_plugin(place.plugins, PLUGIN), True)
    fields = unit_fields(settings, config_path(config))
    for shipped, path in (*place.drop_ins(), *place.units()):
        text = (resources.files("podwire.cli.host") / shipped).read_text()
        say(
            path,
            hostfiles.put(path, text.format(**fields) if path.parent.name == "system" else text),
        )
    for sign, advice in OTHER_MANAGERS.items():
        if Path(sign).exists():
            click.echo(f"note: {advice}", err=True)
    wait_ready(settings.agent_socket, seconds)
    chained = [PLUGIN, *(["portmap"] if portmap and (place.plugins / "portmap").exists() else [])]
    say(
        place.conflist,
        hostfiles.put(place.conflist, conflist(settings, name, cni_version, chained)),
    )


@click.command("uninstall")
@place_options
def uninstall_command(place: Place) -> None:
    """Take back what install has put here; pods that run keep their network.

    The network list goes first, so that no further pod is attached.
    """
    gone = [place.conflist, *(path for _, path in (*place.drop_ins(), *place.units()))]
    for path in gone:
        if hostfiles.take_back(path):
            click.echo(f"removed {path}")
    plugin = place.plugins / PLUGIN
    if plugin.exists():
        plugin.unlink()
        click.echo(f"removed {plugin}")


def conflist(settings: AgentConfig, name: str, version: str, chained: list[str]) -> str:
    """The network list for the runtime."""
    ours = {
        "type": PLUGIN,
        "agentSocket": settings.agent_socket,
        "spoolDir": settings.spool_dir,
        # Runtimes pass only what a plugin declares; one that knows none of these passes nothing.
        "capabilities": dict.fromkeys(CAPABILITIES, True),
    }
    others = [{"type": each, "snat": True, "capabilities": {"portMappings": True}}
              for each in chained[1:]]  # fmt: skip
    return (
        json.dumps(
            {
                "cniVersion": version,
                "name": name,
                "//": hostfiles.MARK,
                "plugins": [ours, *others],
            },
            indent=2,
        )
        + "\n"
    )


def unit_fields(settings: AgentConfig, config: Path) -> dict[str, str]:
    """What the shipped units leave open."""
    program = shutil.which("podwire") or f"{sys.executable} -m podwire"
    return {
        "program": program,
        "config": str(config),
        "bird": shutil.which("bird") or "/usr/sbin/bird",
        "birdc": shutil.which("birdc") or "/usr/sbin/birdc",
        "bird_config": settings.bird_config,
        "bird_socket": settings.bird_socket,
    }


def refuse_beside_calico() -> None:
    """Two owners of one routing table would fight, and Felix's rules drop what is not its own.

    Raises:
        InUse: Felix runs here, or its rules are left.
    """
    felix = find_felix()
    if felix is not None:
        raise InUse(
            f"Calico's agent runs here (process {felix})",
            fix="remove calico-node from this host first",
        )
    for command in (["iptables-save"], ["iptables-legacy-save"], ["nft", "list", "tables"]):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if any(
            f":{mark}" in done.stdout or f"table ip {mark}" in done.stdout for mark in CALICO_CHAINS
        ):
            raise InUse(
                f"rules of Calico are left here ({command[0]}): they drop unknown cali* interfaces",
                fix=f"clean up:\n  {CLEAN_UP}",
            )


def wait_ready(socket: str, seconds: float) -> None:
    """Until the agent says it is ready.

    Raises:
        AgentUnavailable: it is not, for too long; says why.
    """
    deadline = time.monotonic() + seconds
    reason = "it does not answer"
    while time.monotonic() < deadline:
        try:
            told = ask(socket, {"control": "status"})
        except PodwireError as error:
            reason = error.message
        else:
            if told["ready"]:
                return
            reason = "; ".join(told["reasons"])
        time.sleep(0.2)
    raise AgentUnavailable(
        f"the agent is not ready: {reason}",
        fix="start it (systemctl enable --now podwire-agent) and call this again;"
        " the network list is not written yet",
    )


def say(path: Path, changed: bool) -> None:
    """One line for each file."""
    click.echo(f"{'wrote' if changed else 'kept '} {path}")
