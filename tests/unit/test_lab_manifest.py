"""Manifests become values, or a complaint with file, line and field."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from podwire.errors import BadInput
from podwire.lab.manifest import parse_manifests
from podwire.lab.names import ALPHABET, replica_name, template_hash
from podwire.lab.podspec import Container, Deployment, Pod
from podwire.lab.records import from_json, to_json

EXAMPLES = Path(__file__).parents[2] / "examples"

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: one
spec:
  containers:
  - name: main
"""


def deployment() -> Deployment:
    path = EXAMPLES / "demo-deployment.yaml"
    found = parse_manifests(path.read_text(), path.name).objects[0]
    assert isinstance(found, Deployment)
    return found


def test_the_storys_deployment() -> None:
    found = deployment()
    assert (found.namespace, found.name, found.replicas) == ("demo", "demo-deployment", 2)
    assert found.labels == found.selector == {"app": "os"}
    (spread,) = found.spec.spread
    assert (spread.max_skew, spread.hard, spread.selector) == (1, False, {"app": "os"})
    assert found.spec.containers == (Container(name="os", argv=("tail", "-f", "/dev/null")),)


def test_the_storys_pods_by_name() -> None:
    path = EXAMPLES / "story-pods.yaml"
    pods = parse_manifests(path.read_text(), path.name).objects
    assert [(pod.name, pod.spec.node_name) for pod in pods] == [
        ("demo-deployment-6cbdbd86d5-nm467", "vms103"),
        ("demo-deployment-6cbdbd86d5-fbt9d", "vms105"),
    ]


def test_a_short_pod_in_the_given_namespace() -> None:
    (pod,) = parse_manifests(POD, "pod.yaml", "here").objects
    assert isinstance(pod, Pod)
    assert (pod.namespace, pod.name, pod.spec.containers[0].argv) == ("here", "one", ())


def test_a_list_and_several_documents() -> None:
    text = (
        POD + "---\n---\nkind: List\nitems:\n- " + POD.replace("\n", "\n  ").replace("one", "two")
    )
    assert [found.name for found in parse_manifests(text, "x").objects] == ["one", "two"]


def test_command_args_and_environment() -> None:
    text = (
        POD
        + dedent("""\
        command: [sh, -c]
        args: ["echo $WORD"]
        env: [{name: WORD, value: "1"}]
        """)
        .replace("\n", "\n    ")
        .join(["    ", ""])
        .rstrip()
        + "\n"
    )
    (pod,) = parse_manifests(text, "x").objects
    assert pod.spec.containers[0].argv == ("sh", "-c", "echo $WORD")
    assert pod.spec.containers[0].environment == {"WORD": "1"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", r"x\.yaml:\d+:\d+: is not YAML"),
        ("- 1", r"x\.yaml:1: document must be a mapping, not a list"),
        ("kind: Pod\nkind: Pod", r"x\.yaml:2: kind is given twice, first in line 1"),
        ("kind: Service", r"x\.yaml:1: kind 'Service' is not understood"),
        ("kind: Deploymnt", r"did you mean Deployment\?"),
        ("kind: Pod", r"document lacks apiVersion"),
        ("apiVersion: v2\nkind: Pod", r"x\.yaml:1: apiVersion 'v2' does not go with Pod"),
        (POD + "    command: ls", r"x\.yaml:8: spec\.containers\[0\]\.command must be a list"),
        (POD + "    comand: [ls]", r"comand is not a known field \(did you mean command\?\)"),
        (POD + "    command: [sleep, 5]", r'command\[1\] must be a string.*write "5" in quotes'),
        (POD.replace("one", "One"), r"metadata\.name 'One' is not a valid name"),
        (POD.replace("one", "yes"), r'must be a string, not true or false \(write "yes" in quot'),
        (POD + "  nodeSelector: {a: 1}", r"spec\.nodeSelector\.a must be a string"),
        (POD + "  restartPolicy: Sometimes", r"restartPolicy is 'Sometimes'"),
        (POD.replace("  - name: main\n", "    []\n"), r"spec\.containers is empty"),
        (
            POD + "  tolerations: []\n  tolerations: []",
            r"x\.yaml:9: spec\.tolerations is given twice",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_manifests(text, "x.yaml")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("replicas: 2", "replicas: two", r"d\.yaml:9: spec\.replicas must be a whole number"),
        ("replicas: 2", "replicas: -1", r"spec\.replicas is -1 \(choose 0 to 1000\)"),
        ("replicas: 2", "replicas: 2.5", r"must be a whole number"),
        ("maxSkew: 1", "maxSkew: 0", r"maxSkew is 0"),
        ("kubernetes.io/hostname", "zone", r"topologyKey 'zone' is not understood"),
        ("ScheduleAnyway", "Schedule", r"whenUnsatisfiable is 'Schedule'"),
        ("      app: os\n  template", "      app: xx\n  template", r"does not match the labels"),
    ],
)
def test_deployments_too(old: str, new: str, says: str) -> None:
    text = (EXAMPLES / "demo-deployment.yaml").read_text()
    assert old in text
    with pytest.raises(BadInput, match=says):
        parse_manifests(text.replace(old, new, 1), "d.yaml")


def test_what_a_lab_leaves_out_is_named() -> None:
    text = POD + "    resources: {}\n    image: x\n  tolerations: []\n"
    found = parse_manifests(text, "x.yaml")
    assert sorted(found.warnings) == [
        "x.yaml:10: spec.tolerations is left out: a lab has none of it",
        "x.yaml:8: spec.containers[0].resources is left out: a lab has none of it",
    ]


def test_replica_names_have_kubernetes_form() -> None:
    name = replica_name(deployment(), lambda letters: letters[0])
    prefix, template, suffix = name.rsplit("-", 2)
    assert (prefix, suffix) == ("demo-deployment", "bbbbb")
    assert template == template_hash(deployment())
    assert set(template) <= set(ALPHABET)


def test_a_deployment_survives_its_json() -> None:
    found = deployment()
    assert from_json(to_json(found), Deployment) == found
    assert template_hash(from_json(to_json(found), Deployment)) == template_hash(found)
