"""`podwire lab apply|delete|scale|pods`: workloads of a lab, as kubectl shows them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podwire.cli.lab_inside import do_inside, name_option, namespace_option
from podwire.cli.main import complain
from podwire.cli.tables import columns, output
from podwire.errors import BadInput
from podwire.lab.podspec import MOST_REPLICAS
from podwire.lab.workloads import Workloads, changing, lab_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.lab.manifest import Manifests
    from podwire.lab.records import PodState

FILE = click.option("-f", "--filename", metavar="FILE", help="A manifest; - is standard input.")


@click.command("apply")
@name_option
@namespace_option
@click.option(
    "-f", "--filename", metavar="FILE", required=True, help="A manifest; - is standard input."
)
def apply_command(name: str, namespace: str, filename: str) -> None:
    """Create or change pods from a manifest of Pods and Deployments.

    \b
      podwire lab apply -f examples/demo-deployment.yaml
    """  # noqa: D301  # click wants the character
    manifests = _read(filename, namespace)
    _change(name, lambda workloads: workloads.apply(manifests))


@click.command("delete")
@name_option
@namespace_option
@FILE
@click.argument("objects", nargs=-1, metavar="[pod/NAME|deployment/NAME]...")
def delete_command(
    name: str, namespace: str, filename: str | None, objects: tuple[str, ...]
) -> None:
    """Delete what a manifest or KIND/NAME names.

    \b
      podwire lab delete -n demo deployment/web
    """  # noqa: D301  # click wants the character
    if (filename is None) == (not objects):
        raise click.UsageError("give either -f FILE or pod/NAME, deployment/NAME")
    manifests = None if filename is None else _read(filename, namespace)
    targets = [_target(text) for text in objects]

    def work(workloads: Workloads) -> None:
        if manifests is not None:
            workloads.delete(manifests)
        for kind, target in targets:
            if kind == "pod":
                workloads.delete_pod(namespace, target)
            else:
                workloads.delete_deployment(namespace, target)

    _change(name, work)


@click.command("scale")
@name_option
@namespace_option
@click.argument("deployment", metavar="deployment/NAME")
@click.option(
    "--replicas",
    type=click.IntRange(0, MOST_REPLICAS),
    required=True,
    metavar="N",
    help="How many there shall be.",
)
def scale_command(name: str, namespace: str, deployment: str, replicas: int) -> None:
    """Change the number of a deployment's pods.

    \b
      podwire lab scale -n demo deployment/web --replicas 5
    """  # noqa: D301  # click wants the character
    kind, target = _target(deployment if "/" in deployment else f"deployment/{deployment}")
    if kind != "deployment":
        raise BadInput(f"{deployment} cannot be scaled", fix="name a deployment")
    _change(name, lambda workloads: workloads.scale(namespace, target, replicas))


@click.command("pods")
@name_option
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Pods of all namespaces.")
@click.option("-o", "--output", "format", type=click.Choice(["wide", "json", "yaml"]))
def pods_command(*, name: str, namespace: str, all_namespaces: bool, format: str | None) -> None:
    """List pods, as kubectl get pods does.

    \b
      podwire lab pods -A -o wide
    """  # noqa: D301  # click wants the character

    def inside() -> int:
        pods = lab_state().pods
        shown = [pod for pod in pods if all_namespaces or pod.record.namespace == namespace]
        if format in ("json", "yaml"):
            click.echo(output([_fields(pod) for pod in shown], format), nl=False)
        elif shown:
            wide = format == "wide"
            click.echo(_table(shown, wide=wide, namespaces=all_namespaces), nl=False)
        else:
            where = "" if all_namespaces else f" in {namespace} namespace"
            hint = " (others have some: -A)" if pods else ""
            click.echo(f"No pods found{where}{hint}.", err=True)
        return 0

    do_inside(name, inside)


def _read(filename: str, namespace: str) -> Manifests:
    if not filename:
        raise BadInput("-f was given an empty file name", fix="write -f FILE")
    if filename == "-" and sys.stdin is None:
        raise BadInput("standard input is closed", fix="name a file, or pipe one in")
    if filename == "-":
        text, source = sys.stdin.read(), "standard input"
    else:
        source = filename
        try:
            text = Path(filename).read_text()
        except OSError as error:
            raise BadInput(f"{filename} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadInput(f"{filename} is not UTF-8 text") from None
    from podwire.lab.manifest import parse_manifests

    manifests = parse_manifests(text, source, namespace)
    for warning in manifests.warnings:
        click.echo(f"warning: {warning}", err=True)
    if not manifests.objects:
        raise BadInput(f"{source} holds no Pod and no Deployment")
    return manifests


def _target(text: str) -> tuple[str, str]:
    kind, _, target = text.partition("/")
    kinds = {
        "pod": "pod",
        "pods": "pod",
        "po": "pod",
        "deployment": "deployment",
        "deployments": "deployment",
        "deployment.apps": "deployment",
        "deploy": "deployment",
    }
    if kind not in kinds or not target:
        raise BadInput(f"{text!r} names nothing in a lab", fix="write pod/NAME or deployment/NAME")
    return kinds[kind], target


def _change(name: str, work: Callable[[Workloads], None]) -> None:
    def inside() -> int:
        workloads = Workloads(click.echo)
        with changing():
            work(workloads)
        for error in workloads.failures:
            complain(error)
        return 1 if workloads.failures else 0

    do_inside(name, inside)


def _fields(pod: PodState) -> dict[str, Any]:
    record = pod.record
    return {
        "name": record.name,
        "namespace": record.namespace,
        "node": record.node,
        "phase": pod.phase,
        "ip": record.ip,
        "hostInterface": record.host_interface,
        "podInterface": record.pod_interface,
        "netns": record.netns or None,
        "labels": dict(record.labels),
    }


def _table(pods: list[PodState], *, wide: bool, namespaces: bool) -> str:
    header = ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    if namespaces:
        header.insert(0, "NAMESPACE")
    if wide:
        header += ["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    return columns(header, [_row(pod, wide=wide, namespaces=namespaces) for pod in pods])


def _row(pod: PodState, *, wide: bool, namespaces: bool) -> list[object]:
    record = pod.record
    row: list[object] = [
        record.name,
        f"{pod.ready}/{len(record.spec.containers)}",
        pod.status,
        pod.restarts,
        _age(time.time() - record.created),
    ]
    if namespaces:
        row.insert(0, record.namespace)
    if wide:
        row += [record.ip, record.node, None, None]
    return row


def _age(seconds: float) -> str:
    """How kubectl writes a duration: 12s, 3m5s, 2h4m, 1d3h."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if whole < 3 * 3600:
        return f"{whole // 60}m"
    hours = whole // 3600
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"
