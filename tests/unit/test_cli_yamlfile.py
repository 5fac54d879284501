"""Every value of a file knows its line, and every fault is told."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.cli.yamlfile import parse_documents, read_documents, refuse
from podwire.errors import BadInput
from podwire.model.shape import Fault
from tests.fakes.command_line import command_line

TWO = """\
# a comment
kind: IPPool
metadata:
  name: p
spec:
  allowedUses:
    - Workload
    - Tunnel
  blockSize: 26
---
{"kind": "Node", "metadata": {"name": "n"},
 "spec": {"bgp": {"asNumber": 9007199254740993}}}
---
"""


def test_documents_are_plain_values_with_lines() -> None:
    first, second = parse_documents(TWO, "two.yaml")
    assert first.value == {
        "kind": "IPPool",
        "metadata": {"name": "p"},
        "spec": {"allowedUses": ["Workload", "Tunnel"], "blockSize": 26},
    }
    assert first.place(("metadata", "name")) == "two.yaml:4"
    assert first.place(("spec", "allowedUses", 1)) == "two.yaml:8"
    assert first.place(("spec", "missing", "deeper")) == "two.yaml:5"
    assert second.value["spec"]["bgp"]["asNumber"] == 9007199254740993
    assert second.place(("spec", "bgp")) == "two.yaml:12"


def test_a_time_and_a_strange_tag_stay_text() -> None:
    (document,) = parse_documents("at: 2026-08-22T13:00:00Z\nrun: !!python/name:os.system x", "f")
    assert document.value == {"at": "2026-08-22T13:00:00Z", "run": "x"}


def test_keys_given_twice_are_faults_with_both_lines() -> None:
    (document,) = parse_documents("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", "f.yaml")
    assert [str(fault) for fault in document.faults] == [
        "b.c is given twice, in line 3 and again in line 4",
        "a is given twice, in line 1 and again in line 5",
    ]


@pytest.mark.parametrize("text", ["<<: {a: 1}", "{a: 1}: 2", "? [a]\n: b"])
def test_what_cannot_be_a_key_is_a_fault(text: str) -> None:
    (document,) = parse_documents(text, "f.yaml")
    assert "cannot be a key" in str(document.faults[0])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1, 2\nb: 3", r"^f.yaml:2:\d+: is not YAML: "),
        ("a: 'open", r"^f.yaml:\d+:\d+: is not YAML"),
        ("a: *nowhere", r"^f.yaml:1:\d+: is not YAML"),
        ("a: &x [*x]", r"^f.yaml: is not YAML"),
        ("[" * 1_000_000, r"^f.yaml:1: nested more than 100 levels deep"),
        ("a: \x00", r"^f.yaml.* is not YAML"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        parse_documents(text, "f.yaml")


def test_aliases_of_aliases_do_not_explode() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    with pytest.raises(BadInput, match="more than 1000000 values"):
        parse_documents(text, "bomb.yaml")


def test_a_list_stands_for_its_items() -> None:
    text = "kind: IPPoolList\nitems:\n- kind: IPPool\n  x: 1\n  x: 2\n- kind: Node\n"
    first, second = parse_documents(text, "f")
    assert (first.value["kind"], first.place(("x",))) == ("IPPool", "f:4")
    assert len(first.faults) == 1
    assert (second.value, second.place(("kind",))) == ({"kind": "Node"}, "f:6")
    assert parse_documents("kind: IPPoolList\nitems: []", "f") == ()


def test_a_bare_list_of_a_file_stands_for_its_members(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- kind: IPPool\n  x: 1\n  x: 2\n- kind: Node\n---\nkind: Tier\n")
    first, second, third = read_documents([str(path)])
    assert (first.value["kind"], first.place(("x",))) == ("IPPool", f"{path}:2")
    assert len(first.faults) == 1
    assert (second.value, second.place(("kind",))) == ({"kind": "Node"}, f"{path}:4")
    assert third.value == {"kind": "Tier"}
    path.write_text("[]")
    assert told(path) == [f"{path}: there is no document in it"]


def told(*names: Path, recursive: bool = False) -> list[str]:
    """The faults of what could not be read, as they are told."""
    documents = read_documents(map(str, names), recursive=recursive)
    return [str(fault) for document in documents if document.unread for fault in document.faults]


def test_files_directories_and_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("kind: B")
    (tmp_path / "a.json").write_text('{"kind": "A"}')
    (tmp_path / "notes.txt").write_text("kind: No")
    assert [doc.value["kind"] for doc in read_documents([str(tmp_path)])] == ["A", "B"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.yaml").write_text("# nothing\n")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xfc\n")
    (tmp_path / "odd.yaml").write_text("a: [1\n")
    names = [tmp_path / name for name in ("gone", "empty", "blank.yaml", "latin.yaml", "odd.yaml")]
    gone, empty, blank, latin, odd = told(*names)
    assert gone == f"{tmp_path}/gone: there is no such file"
    assert "there is no .yaml, .yml, .json file in this directory" in empty
    assert blank == f"{tmp_path}/blank.yaml: there is no document in it"
    assert latin == f"{tmp_path}/latin.yaml:2: is not UTF-8 text"
    assert odd.startswith(f"{tmp_path}/odd.yaml:2:1: is not YAML")
    assert told(Path("/dev/zero")) == ["/dev/zero: is larger than 64 MiB"]


def test_an_empty_file_name_is_not_the_directory_it_is_called_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("kind: A")
    monkeypatch.chdir(tmp_path)
    for recursive in (False, True):
        (document,) = read_documents([""], recursive=recursive, may_be_empty=True)
        assert [str(fault) for fault in document.faults] == ["-f was given an empty file name"]


def test_directories_are_read_deeply_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a.yaml").write_text("kind: A")
    assert len(told(tmp_path)) == 1
    (document,) = read_documents([str(tmp_path)], recursive=True)
    assert document.value == {"kind": "A"}
    assert read_documents([str(tmp_path)], may_be_empty=True) == ()


def test_faults_are_told_together_one_line_each() -> None:
    (document,) = parse_documents("a:\n  b: 1\nc: 2\n", "f.yaml")
    faults = [(document, Fault(("a", "b"), "is odd", "fix b")), (document, Fault(("c",), "is bad"))]
    with pytest.raises(BadInput) as bad:
        refuse(faults)
    assert bad.value.message.splitlines() == [
        "f.yaml:2: a.b is odd (fix b)",
        "f.yaml:3: c is bad",
        "2 faults; nothing was written",
    ]
    refuse([])


@given(st.text(alphabet=st.sampled_from("ab: -\n[]{},'\"&*!|>#%?1.0\t"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        documents = parse_documents(text, "f")
    except BadInput:
        return
    assert all(document.place(()).startswith("f:") for document in documents)


def test_a_file_that_may_not_be_read_hides_no_other_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, odd = tmp_path / "secret.yaml", tmp_path / "odd.yaml"
    secret.write_text("kind: A")
    odd.write_text("a: [1\n")

    def refused(self: Path, *_: str) -> io.BufferedReader:
        if self == secret:
            raise PermissionError(errno.EACCES, "Permission denied")
        return io.BufferedReader(io.FileIO(self))

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with command_line(tmp_path / "none.db") as podwire:
        told = podwire("validate", "-f", str(secret), "-f", str(odd)).err
    assert f"{secret}: cannot be read: Permission denied" in told
    assert f"{odd}:2:1: is not YAML" in told


def test_a_standard_input_that_is_closed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    (document,) = read_documents(["-"])
    assert [str(fault) for fault in document.faults] == ["<stdin>: standard input is closed"]
