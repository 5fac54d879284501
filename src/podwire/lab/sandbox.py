"""One pod's sandbox: its namespace, its network from the CNI plugin, its processes.

The lab does here what a container runtime does (Kubernetes' CRI): make a namespace, bring its
loopback up, run the plugin's ADD, start the processes in it; DEL and try anew when ADD fails.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podwire.drivers import namespaces
from podwire.drivers.netlink import requests
from podwire.drivers.netlink.session import Session
from podwire.errors import NotFound, Rejected
from podwire.lab.control import ask
from podwire.lab.records import to_json
from podwire.lab.state import CONTROL, DATASTORE, PROGRAMS, NodePaths

if TYPE_CHECKING:
    from podwire.lab.records import PodRecord

TRIES = 4
"""How often ADD or DEL is tried."""
FIRST_WAIT_S = 0.2
"""Between tries; doubled each time."""
PLUGIN_TIMEOUT_S = 60.0
INTERFACE = "eth0"


class PluginFailed(Rejected):
    """The CNI plugin answered with an error; the message is the plugin's."""


def create_pod(record: PodRecord) -> PodRecord:
    """Give a pod its sandbox and start it; what it is called is known from the first moment.

    Raises:
        PluginFailed: no try succeeded; the pod stays, pending, with the reason.
    """
    wait_s = FIRST_WAIT_S
    for attempt in range(TRIES):
        record = _fresh(record)
        ask(CONTROL, {"do": "keep pod", "pod": to_json(record)})
        try:
            record = _attach(record)
            break
        except PluginFailed as error:
            _undo(record)
            record = replace(record, reason=error.message, netns="", container_id="")
            ask(CONTROL, {"do": "keep pod", "pod": to_json(record)})
            if attempt == TRIES - 1:
                raise PluginFailed(f"pod {record.title}: {error.message}", fix=error.fix) from None
            time.sleep(wait_s)
            wait_s *= 2
    ask(CONTROL, {"do": "keep pod", "pod": to_json(record)})
    environment = environment_of(record.node, record.name)
    ask(CONTROL, {"do": "run pod", "title": record.title, "environment": environment})
    return record


def delete_pod(record: PodRecord) -> None:
    """Stop a pod, take its network away, forget it.

    Raises:
        PluginFailed: the plugin refused again and again; the pod stays and can be deleted again.
    """
    ask(CONTROL, {"do": "stop pod", "title": record.title})
    if record.container_id:
        wait_s = FIRST_WAIT_S
        for attempt in range(TRIES):
            try:
                call_plugin("DEL", record)
                break
            except PluginFailed as error:
                if attempt == TRIES - 1:
                    message = f"pod {record.title}: {error.message}"
                    raise PluginFailed(message, fix=error.fix) from None
                time.sleep(wait_s)
                wait_s *= 2
        with suppress(NotFound):
            namespaces.delete_named(Path(record.netns).name)
    ask(CONTROL, {"do": "forget pod", "title": record.title})


def environment_of(node: str, hostname: str) -> dict[str, str]:
    """What programs run in a lab find in their environment, on top of the caller's."""
    paths = NodePaths(node)
    return {
        "PATH": f"{PROGRAMS}:{os.environ.get('PATH', os.defpath)}",
        "PODWIRE_DATASTORE": str(DATASTORE),
        "PODWIRE_CONFIG": str(paths.config),
        "HOSTNAME": hostname,
    }


def call_plugin(command: str, record: PodRecord) -> dict[str, Any]:
    """Run podwire-cni in the node's namespace, as a runtime there would; its result.

    Raises:
        PluginFailed: it ended with an error.
    """
    paths = NodePaths(record.node)
    with namespaces.opened(paths.netns) as node:
        done = namespaces.call_in(
            node,
            subprocess.run,
            [str(paths.cni_programs / "podwire-cni")],
            input=json.dumps(_plugin_config(paths)).encode(),
            env=_plugin_environment(command, record, paths),
            capture_output=True,
            timeout=PLUGIN_TIMEOUT_S,
            check=False,
        )
    return _answer(command, done)


def _fresh(record: PodRecord) -> PodRecord:
    """The record with a new container; the pod's own identity and age stay."""
    return replace(
        record,
        uid=record.uid or str(uuid.uuid4()),
        created=record.created or time.time(),
        container_id=secrets.token_hex(32),
        netns=str(namespaces.NAMED_DIR / f"cni-{uuid.uuid4()}"),
        pod_interface=INTERFACE,
        reason=None,
    )


def _attach(record: PodRecord) -> PodRecord:
    namespaces.create_named(Path(record.netns).name)
    with namespaces.opened(record.netns) as descriptor, Session.open(descriptor) as session:
        session.run(requests.set_link("lo", up=True))
    result = call_plugin("ADD", record)
    host = next(
        (one["name"] for one in result.get("interfaces", ()) if not one.get("sandbox")), None
    )
    addresses = result.get("ips") or ()
    if not addresses:
        raise PluginFailed("the CNI plugin's result has no address")
    return replace(
        record, ip=str(ip_interface(addresses[0]["address"]).ip), host_interface=host, reason=None
    )


def _undo(record: PodRecord) -> None:
    # The specification asks for DEL after a failed ADD; what it says then helps nobody.
    with suppress(PluginFailed):
        call_plugin("DEL", record)
    with suppress(NotFound):
        namespaces.delete_named(Path(record.netns).name)


def _plugin_config(paths: NodePaths) -> dict[str, Any]:
    """What a runtime makes of a configuration list for the list's first plugin."""
    network = json.loads(paths.cni_config.read_text())
    return {
        "cniVersion": network["cniVersion"],
        "name": network["name"],
        **network["plugins"][0],
    }


def _plugin_environment(command: str, record: PodRecord, paths: NodePaths) -> dict[str, str]:
    arguments = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": record.namespace,
        "K8S_POD_NAME": record.name,
        "K8S_POD_INFRA_CONTAINER_ID": record.container_id,
        "K8S_POD_UID": record.uid,
    }
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": record.container_id,
        "CNI_NETNS": record.netns,
        "CNI_IFNAME": record.pod_interface,
        "CNI_PATH": str(paths.cni_programs),
        "CNI_ARGS": ";".join(f"{name}={value}" for name, value in arguments.items()),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }


def _answer(command: str, done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    try:
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
    except ValueError:
        answer = {"msg": done.stdout.decode(errors="replace")}
    if done.returncode == 0:
        return dict(answer)
    text = answer.get("msg") or done.stderr.decode(errors="replace").strip() or "no message"
    if answer.get("details"):
        text = f"{text}: {answer['details']}"
    raise PluginFailed(f"CNI {command} failed with code {answer.get('code', '?')}: {text}")
