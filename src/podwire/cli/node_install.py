"""`podwire node install` and `uninstall`: what a host needs so that runtimes use the plugin."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from podwire.agent.control import ask
from podwire.cli.agent import config_option, config_path, read_settings
from podwire.cli.completion import script
from podwire.cli.host_neighbours import advice, refuse_beside_calico
from podwire.cli.options import gathered
from podwire.cli.unittext import read_variables, word
from podwire.cni.install import install_plugin
from podwire.drivers import hostfiles
from podwire.drivers.config import parse_seconds
from podwire.errors import AgentUnavailable, BadInput, Forbidden, InUse, PodwireError
from podwire.model.cnidemand import CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podwire.model.config import AgentConfig

PLUGIN = "podwire"
CONFLIST = "10-podwire.conflist"
UNITS = ("podwire-agent.service", "podwire-bird.service", "podwire-bird.path")
CHAINED = {
    "portmap": {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
    "bandwidth": {"type": "bandwidth", "capabilities": {"bandwidth": True}},
}
"""Plugins that may stand behind ours in the network list."""
NO_CHAIN = "none"
EARLIER = (".conf", ".conflist", ".json")
"""What runtimes take for a network; the first by name counts."""
READERS = {
    "networkd.conf": "systemctl restart systemd-networkd",
    "networkd.network": "networkctl reload",
    "networkmanager.conf": "systemctl reload NetworkManager",
}
"""Shipped file → what makes the network manager read it; it keeps its old ways until then."""
LEFT = (
    "what the agent made in the kernel stays for the pods that run: their veths and routes, the"
    " nftables tables `podwire` of ip, ip6 and arp, net.ipv4.ip_forward=1; a reboot ends it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where things go."""

    plugins: Path
    networks: Path
    etc: Path

    @property
    def journal(self) -> hostfiles.Journal:
        """What was put where."""
        return hostfiles.Journal(self.etc / "podwire" / "installed")

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
            for name in UNITS:
                yield name, self.etc / "systemd/system" / name

    def completions(self) -> Iterator[tuple[str, Path]]:
        """Shell and place of what it needs to complete our commands."""
        if (self.etc / "bash_completion.d").is_dir():
            yield "bash", self.etc / "bash_completion.d/podwire"
        if (self.etc / "fish").is_dir():
            yield "fish", self.etc / "fish/completions/podwire.fish"

    def earlier(self) -> list[Path]:
        """Networks that come before ours."""
        found = sorted(self.networks.iterdir())
        return [each for each in found if each.suffix in EARLIER and each.name < CONFLIST]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the network list is to say, and how long to wait for the agent."""

    name: str
    cni_version: str
    patience: str
    chain: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long the agent may take.

        Raises:
            BadInput: that is no time.
        """
        seconds = parse_seconds(self.patience)
        if seconds is None:
            raise BadInput(f"--wait {self.patience!r} is not a time", fix="write it 60s or 5m")
        return seconds

    def plugins(self, place: Place) -> list[str]:
        """What to chain behind ours; by itself portmap, where it is installed.

        Raises:
            BadInput: a plugin that was asked for is not installed.
        """
        if NO_CHAIN in self.chain:
            if len(set(self.chain)) > 1:
                raise BadInput("--chain none excludes other plugins", fix="leave it out")
            return []
        for each in self.chain:
            if not (place.plugins / each).exists():
                raise BadInput(
                    f"the plugin {each} is not in {place.plugins}",
                    fix="install it (Debian: containernetworking-plugins), or leave it out",
                )
        if self.chain:
            return list(dict.fromkeys(self.chain))
        return ["portmap"] if (place.plugins / "portmap").exists() else []


wish_options = gathered(
    Wish,
    "wish",
    click.option(
        "--name", default="k8s-pod-network", show_default=True, help="The network's name."
    ),
    click.option(
        "--cni-version",
        type=click.Choice(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]),
        default="1.0.0",
        show_default=True,
        help="containerd 1.x takes up to 1.0.0.",
    ),
    click.option(
        "--wait",
        "patience",
        metavar="TIME",
        default="60s",
        show_default=True,
        help="How long the agent may take to get ready.",
    ),
    click.option(
        "--chain",
        multiple=True,
        type=click.Choice([*CHAINED, NO_CHAIN]),
        help="A plugin behind ours, repeatable; by itself portmap, where it is installed.",
    ),
)


@click.command("install")
@place_options
@wish_options
@click.option("--completion", is_flag=True, help="Also what bash and fish need to complete.")
@config_option
def install_command(place: Place, wish: Wish, completion: bool, config: Path | None) -> None:
    """Have this host's container runtime use Podwire.

    Puts the plugin there, keeps network managers off our interfaces and routes, writes systemd
    units (it enables none), waits until the agent is ready, and writes the network list last: from
    that moment on the runtime takes the node for ready.

    \b
      podwire node install --wait 1s                    before the agent runs
      podwire node install --chain portmap --chain bandwidth
    """  # noqa: D301  # click wants the character
    # As the agent will have them: its unit reads that file.
    os.environ |= read_variables(place.etc / "default/podwire")
    settings = read_settings(config)
    seconds, chained = wish.seconds, wish.plugins(place)
    refuse_beside_calico()
    put_plugin(place)
    fields = unit_fields(settings, config_path(config))
    for shipped, path in place.drop_ins():
        if put(place, path, _shipped(shipped)):
            tell_reader(shipped, path)
    for shipped, path in place.units():
        put(place, path, _shipped(shipped).format(**fields))
    for shell, path in place.completions() if completion else ():
        put(place, path, f"# {hostfiles.MARK}\n{script(shell)}")
    for each in advice(place.etc):
        click.echo(f"note: {each}", err=True)
    wait_ready(settings.agent_socket, seconds)
    put(place, place.conflist, conflist(settings, wish, chained))
    for other in place.earlier():
        click.echo(f"note: {other} comes before ours by name: runtimes take that one", err=True)


def _shipped(name: str) -> str:
    return (resources.files("podwire.cli.host") / name).read_text()


def put(place: Place, path: Path, text: str) -> bool:
    """Write one file, noted before, and say so; whether it is another one now."""
    place.journal.note(path)
    changed = hostfiles.put(path, text)
    say(path, changed)
    return changed


def tell_reader(shipped: str, path: Path) -> None:
    """Say how the network manager learns of its file: we restart no service of others."""
    click.echo(f"note: {path} counts after: {READERS[shipped]}", err=True)


def put_plugin(place: Place) -> None:
    """Write the plugin program, never over somebody else's.

    Raises:
        InUse: another program of that name is there.
    """
    plugin = place.plugins / PLUGIN
    if plugin.exists() and not hostfiles.is_ours(plugin):
        raise InUse(
            f"{plugin} is there and is not podwire's plugin",
            fix="move it away, or name another directory with --cni-bin-dir",
        )
    place.journal.note(plugin)
    try:
        say(install_plugin(place.plugins, PLUGIN), True)
    except OSError as error:
        raise Forbidden(
            f"{plugin} cannot be written: {error.strerror}", fix="run it as root"
        ) from None


@click.command("uninstall")
@place_options
def uninstall_command(place: Place) -> None:
    """Take back what install has put here; pods that run keep their network.

    The network list goes first, so that no further pod is attached. What an older version has put
    goes as well; a file that is not ours any more stays.

    \b
      podwire node uninstall
    """  # noqa: D301  # click wants the character
    journal = place.journal
    known = [place.conflist, *(path for _, path in (*place.drop_ins(), *place.units()))]
    known += [*(path for _, path in place.completions()), place.plugins / PLUGIN]
    folders = journal.directories()
    readers = {path: shipped for shipped, path in place.drop_ins()}
    removed = 0
    for path in sorted(dict.fromkeys((*known, *journal.paths())), key=_network_lists_first):
        if hostfiles.take_back(path):
            removed += 1
            click.echo(f"removed {path}")
            if path in readers:
                tell_reader(readers[path], path)
        elif path.exists():
            click.echo(f"kept    {path}: it was not written by podwire")
    hostfiles.take_back(journal.path)
    for folder in folders:
        with suppress(OSError):  # somebody else has put something there
            folder.rmdir()
            click.echo(f"removed {folder}/")
    wanted = place.etc / "systemd/system/multi-user.target.wants"
    left = [name for name in UNITS if (wanted / name).is_symlink()]
    if left:
        click.echo(
            f"note: still enabled: systemctl disable --now {' '.join(left)}"
            " && systemctl daemon-reload",
            err=True,
        )
    click.echo(f"note: {LEFT}" if removed else "nothing of podwire's is installed here", err=True)


def _network_lists_first(path: Path) -> bool:
    return path.suffix != ".conflist"


def conflist(settings: AgentConfig, wish: Wish, chained: list[str]) -> str:
    """The network list for the runtime."""
    ours = {
        "type": PLUGIN,
        "agentSocket": settings.agent_socket,
        "spoolDir": settings.spool_dir,
        # Runtimes pass only what a plugin declares; one that knows none of these passes nothing.
        "capabilities": dict.fromkeys(CAPABILITIES, True),
    }
    network = {
        "cniVersion": wish.cni_version,
        "name": wish.name,
        "//": hostfiles.MARK,
        "plugins": [ours, *(CHAINED[each] for each in chained)],
    }
    return json.dumps(network, indent=2) + "\n"


def unit_fields(settings: AgentConfig, config: Path | None) -> dict[str, str]:
    """What the shipped units leave open."""
    found = shutil.which("podwire")
    program = word(found) if found else f"{word(sys.executable)} -m podwire"
    return {
        "program": program,
        "config": "" if config is None else f" --config {word(str(config.absolute()))}",
        "bird": word(shutil.which("bird") or "/usr/sbin/bird"),
        "birdc": word(shutil.which("birdc") or "/usr/sbin/birdc"),
        "bird_config": word(settings.bird_config),
        "bird_path": settings.bird_config.replace("%", "%%"),
        "bird_socket": word(settings.bird_socket),
    }


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
