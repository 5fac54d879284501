"""Moving a datastore: all arrives, nothing is mixed, and it can be cut off anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from podwire.cli.main import podwire
from podwire.drivers.store.jsontext import Opaque, to_text
from podwire.drivers.store.single_object import Crash, SingleObjectStore
from podwire.drivers.store.transfer import export_lines, import_objects, parse_lines
from podwire.errors import BadInput, InUse
from podwire.model import keys

if TYPE_CHECKING:
    from pathlib import Path

VALUES = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=5,
    ),
    max_size=3,
)
OBJECTS = st.dictionaries(
    st.text(min_size=1, max_size=10).map(lambda name: f"/calico/{name}"), VALUES, max_size=8
)


def filled(objects: dict[str, dict[str, object]]) -> SingleObjectStore:
    store = SingleObjectStore(batches=True)
    for key, value in objects.items():
        store.create(key, value)
    return store


def moved(source: SingleObjectStore, target: SingleObjectStore) -> int:
    return import_objects(target, parse_lines(export_lines(source), "all"))


@given(OBJECTS)
def test_all_arrives(objects: dict[str, dict[str, object]]) -> None:
    target = SingleObjectStore()
    assert moved(filled(objects), target) == len(objects)
    assert {entry.key: entry.value for entry in target.list("").entries} == objects
    assert moved(filled(objects), target) == 0


@pytest.mark.parametrize("text", ["", "true", "no JSON", "[1, 2]"])
def test_values_that_are_no_objects_arrive_as_they_are(text: str) -> None:
    target = SingleObjectStore()
    moved(filled({"/calico/ipam/v2/host/old": Opaque("", text)}), target)
    (entry,) = target.list("").entries
    assert to_text(entry.value) == text


def test_what_is_no_text_is_named_and_not_left_out() -> None:
    source = filled({"/calico/x": Opaque("", "\udcff")})
    with pytest.raises(BadInput, match="'/calico/x' or its value is no text"):
        moved(source, SingleObjectStore())


def test_what_other_programs_keep_in_the_same_etcd_stays_out_of_it() -> None:
    source = filled({"/registry/pods/x": Opaque("", "k8s\0\udcff"), "/calico/x": {}})
    target = filled({"/registry/pods/y": {}})
    assert moved(source, target) == 1


def test_what_only_a_running_cluster_has_stays() -> None:
    status = f"{keys.FELIX}no-region/host/node-1/status"
    source = filled({f"{keys.APPLIED}node-1": {}, status: {"uptime": 1}, "/calico/x": {}})
    target = SingleObjectStore()
    moved(source, target)
    assert [entry.key for entry in target.list("").entries] == ["/calico/x"]


def test_cut_off_it_goes_on_and_the_cluster_appears_last() -> None:
    names = [*(f"/calico/ipam/{n}" for n in range(5)), keys.cluster_key(), "/calico/z"]
    source, target = filled({name: {"n": name} for name in names}), SingleObjectStore()
    target.fail_after(6)
    with pytest.raises(Crash):
        moved(source, target)
    target.recover()
    assert target.get(keys.cluster_key()) is None
    assert moved(source, target) == 1
    assert target.get(keys.cluster_key()) is not None


@pytest.mark.parametrize("there", [{"/calico/y": {}}, {"/calico/x": {"other": 1}}])
def test_other_objects_are_not_mixed_with(there: dict[str, dict[str, object]]) -> None:
    target = filled(there)
    with pytest.raises(InUse, match=next(iter(there))):
        moved(filled({"/calico/x": {}, "/calico/w": {}}), target)
    assert {entry.key: entry.value for entry in target.list("").entries} == there


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "cut off"),
        (["{}"], "all:1: is no export"),
        (["[]"], "all:1: is no line"),
        (
            [
                '{"format": "podwire.datastore.v1", "objects": 2}',
                '{"key": "/calico/a", "value": {}}',
            ],
            "cut",
        ),
        (['{"format": "podwire.datastore.v1", "objects": 1}', '{"key": "/calico/a"}'], "all:2"),
        (
            ['{"format": "podwire.datastore.v1", "objects": 1}', '{"key": "/a", "value": {}}'],
            "all:2: the key /a is not below /calico/ or /podwire/",
        ),
    ],
)
def test_what_is_no_whole_export_is_refused(lines: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_lines(lines, "all")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "all"
    file.write_bytes(b"\xff\n")
    words = ("datastore", "import", "--datastore", str(tmp_path / "x.db"), str(file))
    with pytest.raises(BadInput, match="/all is not UTF-8 text"):
        CliRunner().invoke(podwire, words, catch_exceptions=False)


def test_the_commands_move_a_file(tmp_path: Path) -> None:
    def run(*words: str, text: str | None = None) -> str:
        done = CliRunner().invoke(podwire, words, input=text, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    one, two = str(tmp_path / "one.db"), str(tmp_path / "two.db")
    pool = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
"""
    run("apply", "--datastore", one, "-f", "-", text=pool)
    text = run("datastore", "export", "--datastore", one)
    count = text.count("\n") - 1
    told = run("datastore", "import", "--datastore", two, "-", text=text)
    assert told == f"{count} objects written, 0 were there already\n"
    assert run("datastore", "export", "--datastore", two) == text
