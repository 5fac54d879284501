"""Call CNI plugins as libcni does: a program, its environment, the config on standard input.

Every call is one process; several are started at once and their ends awaited together, so that the
driver costs each plugin the same.
"""

from __future__ import annotations

import json
import os
import select
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES = Path("/run/netns")


class CallFailed(Exception):
    """A plugin ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A program and its network configuration."""

    program: Path
    config: Mapping[str, Any]
    path: Path
    """CNI_PATH: where the plugin finds the plugins it calls itself (IPAM)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """An attachment to ask for."""

    name: str
    namespace: str
    """Network namespace, by its name under /run/netns."""

    @property
    def container_id(self) -> str:
        return self.name.encode().hex().ljust(64, "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one call went."""

    seconds: float
    code: int
    output: str


class Caller:
    """Calls one plugin for several pods at once."""

    def __init__(self, plugin: Plugin, folder: Path) -> None:
        self._plugin = plugin
        self._config = folder / f"{plugin.program.name}-{plugin.config['name']}.json"
        self._config.write_text(json.dumps(plugin.config))

    def add(self, pods: Sequence[Pod]) -> list[Ended]:
        return self.call("ADD", pods)

    def delete(self, pods: Sequence[Pod]) -> list[Ended]:
        return self.call("DEL", pods)

    def call(self, verb: str, pods: Sequence[Pod]) -> list[Ended]:
        """Start all calls, then wait for all; raises CallFailed with the plugin's own words."""
        began: dict[int, float] = {}
        outputs: dict[int, int] = {}
        for pod in pods:
            moment = time.perf_counter()
            pid, output = self._start(verb, pod)
            began[pid], outputs[pid] = moment, output
        ended = [
            Ended(seconds=moment - began[pid], code=code, output=_read(outputs[pid]))
            for pid, moment, code in _wait_all(list(began))
        ]
        for each in ended:
            if each.code != 0:
                raise CallFailed(f"{self._plugin.program.name} {verb}: {each.output.strip()}")
        return ended

    def _start(self, verb: str, pod: Pod) -> tuple[int, int]:
        program = str(self._plugin.program)
        config = os.open(self._config, os.O_RDONLY)
        # A file in memory instead of a pipe: nobody has to read while the plugin runs.
        output = os.memfd_create("output")
        try:
            pid = os.posix_spawn(
                program,
                [program],
                self._environment(verb, pod),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, config, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                ],
            )
        finally:
            os.close(config)
        return pid, output

    def _environment(self, verb: str, pod: Pod) -> dict[str, str]:
        return {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": pod.container_id,
            "CNI_NETNS": str(NAMES / pod.namespace),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self._plugin.path),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={pod.name}",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }


def _wait_all(pids: Sequence[int]) -> list[tuple[int, float, int]]:
    """(pid, moment of its end, exit code) of each, in order of their ends."""
    poll = select.poll()
    descriptors = {os.pidfd_open(pid): pid for pid in pids}
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    ended = []
    while descriptors:
        ready = poll.poll()
        moment = time.perf_counter()
        for descriptor, _ in ready:
            pid = descriptors.pop(descriptor)
            poll.unregister(descriptor)
            os.close(descriptor)
            _, status = os.waitpid(pid, 0)
            ended.append((pid, moment, os.waitstatus_to_exitcode(status)))
    return ended


def _read(output: int) -> str:
    with os.fdopen(output) as file:
        file.seek(0)
        return file.read()
