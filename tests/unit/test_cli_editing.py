"""create, replace, patch, label and dry runs: what they change, refuse and show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from podwire.cli.main import podwire
from podwire.drivers.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

POOL = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods, labels: {zone: a}}
spec: {cidr: 10.244.0.0/16, blockSize: 26}
"""


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


def run(store: str, *words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(podwire, [words[0], "--datastore", store, *words[1:]], input=text)


def said(result: Result) -> str:
    return f"{result.output}{result.exception or ''}"


def pool(store: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(run(store, "get", "ippool", "pods", "-o", "json").stdout)
    return value


def test_create_never_replaces_and_replace_never_creates(store: str) -> None:
    assert "IPPool pods does not exist" in said(run(store, "replace", "-f", "-", text=POOL))
    done = run(store, "create", "-f", "-", text=POOL)
    assert done.stdout == "Successfully created 1 'IPPool' resource(s)\n"
    assert "exists already" in said(run(store, "create", "-f", "-", text=POOL))
    other = POOL.replace("zone: a", "zone: b")
    assert run(store, "replace", "-f", "-", text=other).exit_code == 0
    assert pool(store)["metadata"]["labels"] == {"zone": "b"}


def test_a_dry_run_shows_the_difference_and_writes_nothing(store: str) -> None:
    run(store, "create", "-f", "-", text=POOL)
    before = pool(store)
    shown = run(store, "apply", "--dry-run", "-f", "-", text=POOL.replace("zone: a", "zone: b"))
    assert "--- IPPool pods (now)" in shown.stdout
    lines = shown.stdout.splitlines()
    assert "-    zone: a" in lines
    assert "+    zone: b" in lines
    assert pool(store) == before
    same = run(store, "apply", "--dry-run", "-f", "-", text=POOL)
    assert same.stdout == "nothing would change\n"


def test_a_patch_changes_what_it_names(store: str) -> None:
    run(store, "create", "-f", "-", text=POOL)
    done = run(store, "patch", "ippool", "pods", "-p", '{"spec": {"natOutgoing": true}}')
    assert done.exit_code == 0, said(done)
    assert pool(store)["spec"]["natOutgoing"] is True
    assert pool(store)["metadata"]["labels"] == {"zone": "a"}
    for patch, problem in (
        ('{"spec": {"natOutgoing": "perhaps"}}', "natOutgoing"),
        ('{"spec": {"cidr": "10.0.0.0/8"}}', "cidr"),
        ('{"spec": {"natoutgoing": true}}', "did you mean natOutgoing"),
        ("[1]", "one mapping"),
    ):
        before = pool(store)
        assert problem in said(run(store, "patch", "ippool", "pods", "-p", patch))
        assert pool(store) == before
    assert "does not exist" in said(run(store, "patch", "ippool", "none", "-p", "{}"))
    assert "cannot be changed" in said(run(store, "patch", "blockaffinity", "x", "-p", "{}"))


def test_labels_are_set_changed_and_taken_away(store: str) -> None:
    run(store, "create", "-f", "-", text=POOL)

    def labels() -> object:
        return pool(store)["metadata"].get("labels")

    assert run(store, "label", "ippool", "pods", "rack=7").exit_code == 0
    assert labels() == {"zone": "a", "rack": "7"}
    assert "add --overwrite" in said(run(store, "label", "ippool", "pods", "zone=b"))
    assert run(store, "label", "--overwrite", "ippool", "pods", "zone=b").exit_code == 0
    assert run(store, "label", "ippool", "pods", "rack-").exit_code == 0
    assert labels() == {"zone": "b"}
    assert run(store, "label", "ippool", "pods", "zone-").exit_code == 0
    assert not labels()
    assert "is no label" in said(run(store, "label", "ippool", "pods", "zone"))


def test_get_shows_names_columns_and_what_a_selector_takes(store: str) -> None:
    other = POOL.replace("pods", "more").replace("244", "245").replace("zone: a", "zone: b")
    for text in (POOL, other):
        assert run(store, "create", "-f", "-", text=text).exit_code == 0
    assert run(store, "get", "ippool", "-o", "name").stdout == "ippool/more\nippool/pods\n"
    assert run(store, "get", "ippool", "-l", "zone == 'a'", "-o", "name").stdout == "ippool/pods\n"
    shown = run(store, "get", "ippool", "pods", "-o", "custom-columns=cidr,NAME").stdout
    assert [line.split() for line in shown.splitlines()] == [
        ["CIDR", "NAME"],
        ["10.244.0.0/16", "pods"],
    ]
    for words, problem in (
        (("-o", "custom-columns=SIZE"), "no column 'SIZE'"),
        (("-o", "xml"), "output format 'xml' is unknown"),
        (("-l", "zone ="), "selector"),
    ):
        assert problem in said(run(store, "get", "ippool", *words))


@pytest.mark.parametrize(
    "words",
    [("label", "ippool", "pods"), ("patch", "ippool", "pods", "-p")],
    ids=["label", "patch"],
)
def test_others_who_write_at_the_same_time_are_no_error(
    store: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    run(store, "apply", "-f", "-", text=POOL)
    read, left = SQLiteStore.get, [2]

    def get_and_be_late(self: SQLiteStore, key: str) -> Any:
        entry = read(self, key)
        if left[0] and key.endswith("/ippools/pods"):
            left[0] -= 1
            assert entry is not None
            self.update(key, entry.value, entry.revision)
        return entry

    monkeypatch.setattr(SQLiteStore, "get", get_and_be_late)
    change = "rack=7" if words[0] == "label" else '{"metadata": {"labels": {"rack": "7"}}}'
    done = run(store, *words, change)
    assert (done.exit_code, said(done)) == (0, done.stdout)
    assert left == [0]
    assert pool(store)["metadata"]["labels"] == {"zone": "a", "rack": "7"}


def test_a_patch_that_names_a_revision_counts_for_it_alone(store: str) -> None:
    run(store, "apply", "-f", "-", text=POOL)
    change = '{"metadata": {"resourceVersion": "999", "labels": {"rack": "7"}}}'
    assert "was changed since it was read (resourceVersion 999)" in said(
        run(store, "patch", "ippool", "pods", "-p", change)
    )
