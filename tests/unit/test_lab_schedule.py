"""Pods are spread as their constraints say."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import BadInput
from podwire.lab.podspec import Container, PodSpec, Spread
from podwire.lab.schedule import Candidate, Placed, Unplaced, choose_node
from podwire.lab.topology import Topology

LABELS = {"app": "os"}
MAIN = (Container(name="main"),)


def nodes(count: int) -> list[Candidate]:
    return [
        Candidate(name=f"n{number}", labels={"kubernetes.io/hostname": f"n{number}"})
        for number in range(count)
    ]


def pod(spec: PodSpec, number: int = 0) -> Unplaced:
    return Unplaced(namespace="demo", name=f"p{number}", labels=LABELS, spec=spec)


def spread_all(
    count: int, where: list[Candidate], spec: PodSpec, placed: list[Placed]
) -> Counter[str]:
    for number in range(count):
        node = choose_node(pod(spec, number), where, placed)
        placed.append(Placed(namespace="demo", labels=LABELS, node=node))
    return Counter(one.node for one in placed)


@given(
    pods=st.integers(1, 30),
    count=st.integers(1, 8),
    skew=st.integers(1, 3),
    hard=st.booleans(),
)
def test_a_fresh_deployment_is_within_its_skew(
    pods: int, count: int, skew: int, hard: bool
) -> None:
    spec = PodSpec(containers=MAIN, spread=(Spread(max_skew=skew, hard=hard, selector=LABELS),))
    counts = spread_all(pods, nodes(count), spec, [])
    assert max(counts.values()) - min(counts.get(f"n{i}", 0) for i in range(count)) <= 1


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 10))
def test_a_spread_heals_an_uneven_start(start: list[int], pods: int) -> None:
    spec = PodSpec(containers=MAIN, spread=(Spread(hard=True, selector=LABELS),))
    placed = [Placed(namespace="demo", labels=LABELS, node=f"n{number}") for number in start]
    before = Counter(one.node for one in placed)
    for number in range(pods):
        node = choose_node(pod(spec, number), nodes(4), placed)
        counts = Counter(one.node for one in placed)
        assert counts[node] == min(counts.get(f"n{i}", 0) for i in range(4))
        placed.append(Placed(namespace="demo", labels=LABELS, node=node))
    assert sum(before.values()) + pods == len(placed)


def test_pods_of_other_namespaces_do_not_count() -> None:
    spec = PodSpec(containers=MAIN, spread=(Spread(hard=True, selector=LABELS),))
    others = [Placed(namespace="else", labels=LABELS, node="n0")] * 3
    assert choose_node(pod(spec), nodes(1), others) == "n0"


def test_without_constraints_the_emptier_node_is_taken() -> None:
    placed = [
        Placed(namespace="x", labels={}, node="n0"),
        Placed(namespace="x", labels={}, node="n1"),
    ]
    assert choose_node(pod(PodSpec(containers=MAIN)), nodes(3), placed) == "n2"


def test_the_same_question_has_the_same_answer() -> None:
    spec = PodSpec(containers=MAIN)
    assert {choose_node(pod(spec), nodes(9), []) for _ in range(5)} == {
        choose_node(pod(spec), list(reversed(nodes(9))), [])
    }


def test_node_name_and_selector_decide() -> None:
    assert choose_node(pod(PodSpec(containers=MAIN, node_name="n2")), nodes(3), []) == "n2"
    selector = {"kubernetes.io/hostname": "n1"}
    assert choose_node(pod(PodSpec(containers=MAIN, node_selector=selector)), nodes(3), []) == "n1"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (PodSpec(containers=MAIN, node_name="nx"), "nodeName 'nx' is not a node"),
        (PodSpec(containers=MAIN, node_selector={"a": "b"}), "nodeSelector a=b"),
        (
            PodSpec(
                containers=MAIN,
                node_name="n0",
                spread=(Spread(max_skew=1, hard=True, selector=LABELS),),
            ),
            None,
        ),
    ],
)
def test_a_pod_that_fits_nowhere_says_why(spec: PodSpec, says: str | None) -> None:
    if says is None:
        # Only the nodes the pod may use count for the skew.
        placed = [Placed(namespace="demo", labels=LABELS, node="n0")]
        assert choose_node(pod(spec), nodes(2), placed) == "n0"
        return
    with pytest.raises(BadInput, match=says):
        choose_node(pod(spec), nodes(2), [])


def test_the_storys_deployment_lands_on_the_storys_nodes() -> None:
    where = [Candidate(name=node.name, labels=node.labels) for node in Topology().nodes]
    spec = PodSpec(containers=MAIN, spread=(Spread(hard=False, selector=LABELS),))
    first = Unplaced(
        namespace="demo", name="x", labels=LABELS, spec=spec, owner="demo/demo-deployment"
    )
    one = choose_node(first, where, [])
    other = choose_node(first, where, [Placed(namespace="demo", labels=LABELS, node=one)])
    assert {one, other} == {"vms103", "vms105"}
