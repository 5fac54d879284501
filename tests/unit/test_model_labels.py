"""Which labels and annotations may be written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from podwire.model import keys
from podwire.model.labels import label_faults
from tests.fakes.command_line import command_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("key", "value", "sound"),
    [
        ("rack", "7", True),
        ("kubernetes.io/hostname", "", True),
        ("a" * 63, "A" + "_" * 61 + "z", True),
        ("bad key", "x", False),
        ("", "x", False),
        ("/name", "x", False),
        ("a/b/c", "x", False),
        ("Upper.io/name", "x", False),
        ("-rack", "x", False),
        ("a" * 64, "x", False),
        (f"{'a.' * 127}/x", "x", False),
        ("rack", "y" * 64, False),
        ("rack", "ends.", False),
        ("rack", "a b", False),
        ("rack", "line\n", False),
        ("räck", "x", False),
    ],
)
def test_labels_follow_kubernetes_rules(key: str, value: str, sound: bool) -> None:
    assert (not label_faults({"metadata": {"labels": {key: value}}})) is sound


def test_annotations_have_keys_alone_and_a_prefix_in_any_case() -> None:
    fine = {"Upper.io/name": "any text\n" * 100}
    assert label_faults({"metadata": {"annotations": fine}}) == []
    assert len(label_faults({"metadata": {"annotations": {"bad key": ""}}})) == 1


def test_what_others_wrote_is_kept_and_only_changes_are_refused(tmp_path: Path) -> None:
    node = {
        "kind": "Node",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "n1", "labels": {"bad key": "odd value"}, "annotations": {"a b": "c"}},
        "spec": {},
    }
    with command_line(tmp_path / "datastore.db") as podwire:
        text = json.dumps(node)
        for verb in ("apply", "create", "validate"):
            said = podwire(verb, "-f", "-", text=text)
            assert said.code == 64
            assert "'bad key' is no label key" in said.err
            assert "'a b' is no annotation key" in said.err
        podwire.store.create(keys.node_key("n1"), node)
        podwire.done("apply", "-f", "-", text=text)
        podwire.done("label", "node", "n1", "rack=7")
        said = podwire("label", "node", "n1", "bad key=other value", "--overwrite")
        assert "'other value' is no label value" in said.err
        for words in (
            ("label", "node", "n1", "one more=x"),
            ("label", "node", "n1", f"x={'y' * 64}"),
        ):
            assert podwire(*words).code == 64
        podwire.done("label", "node", "n1", "bad key-")
        assert podwire.read(keys.node_key("n1")).metadata.labels == {"rack": "7"}
