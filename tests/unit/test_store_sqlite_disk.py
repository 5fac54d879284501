"""A datastore whose disk is full or read-only says so, stays whole, and can still be read.

Each test is a small program in a mount namespace of its own, with a tmpfs for a disk.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

DISK = """
import subprocess, sys
from pathlib import Path
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.errors import DatastoreUnavailable

disk = Path(sys.argv[1])

def mount(*options):
    subprocess.run(["mount", *options, "-t", "tmpfs", "tmpfs", str(disk)], check=True)

def refused(act, *words):
    try:
        act()
    except DatastoreUnavailable as error:
        assert all(word in str(error) for word in (str(path), *words)), error
    else:
        raise AssertionError("it went through")

path = disk / "datastore.db"
"""

FULL = """
mount("-o", "size=2m")
store = SQLiteStore(path)
watch = store.watch("/", store.list("/").revision)
written = 0
try:
    while True:
        store.create(f"/{written:04}", {"filler": "x" * 2000})
        written += 1
except DatastoreUnavailable as error:
    assert "no space left" in str(error), error
assert written > 50
for act in (
    lambda: store.create("/large", {"filler": "x" * 100_000}),
    lambda: store.update("/0000", {"filler": "y" * 100_000}, store.get("/0000").revision),
):
    refused(act, "no space left", "nothing was changed")
refused(store.check_writable, "no space left")
assert len(store.list("/").entries) == written
seen = []
while len(seen) < written:
    seen += watch.wait(30)
assert [change.key for change in seen] == [f"/{n:04}" for n in range(written)]
store.close()

store = SQLiteStore(path)
assert len(store.list("/").entries) == written
subprocess.run(["mount", "-o", "remount,size=30m", str(disk)], check=True)
store.create("/large", {"filler": "x" * 100_000})
store.close()
"""

FULL_BEFORE = """
mount("-o", "size=2m")
store = SQLiteStore(path)
store.create("/a", {"n": 1})
store.close()
try:
    with (disk / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
except OSError:
    pass
# Opened anew: SQLite has no room for the files beside the file.
store = SQLiteStore(path)
for act in (lambda: store.list("/"), lambda: store.create("/b", {})):
    refused(act, "no space left", f"free some space below {disk}")
(disk / "filler").unlink()
store.create("/b", {})
assert len(store.list("/").entries) == 2
store.close()
"""

READ_ONLY = """
mount()
store = SQLiteStore(path)
store.create("/a", {"n": 1})
store.close()
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

store = SQLiteStore(path)
assert store.get("/a").value == {"n": 1}
listing = store.list("/")
assert len(listing.entries) == 1
watch = store.watch("/", listing.revision)
assert list(watch.wait(0)) == []
for act in (
    lambda: store.create("/b", {}),
    lambda: store.update("/a", {}, listing.entries[0].revision),
    lambda: store.delete("/a"),
):
    refused(act, "read-only", f"make {path}")
other, path = path, disk / "other.db"
for act in (lambda: SQLiteStore(path).list("/"), lambda: SQLiteStore(path).create("/a", {})):
    refused(act, "read-only")
path = other

# Once it may be written again, the same program goes on.
subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
store.create("/b", {})
assert [change.key for change in watch.wait(30)] == ["/b"]
store.close()
"""

READ_ONLY_AFTER_A_CRASH = """
import os
mount()
if os.fork() == 0:
    store = SQLiteStore(path)
    store.create("/a", {"n": 1})
    os._exit(0)  # as after kill -9: the write-ahead log stays
os.wait()
assert (disk / "datastore.db-wal").stat().st_size
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
store = SQLiteStore(path)
assert store.get("/a").value == {"n": 1}
refused(lambda: store.delete("/a"), "read-only")
store.close()
"""


@pytest.fixture(scope="module")
def mount_namespaces() -> None:
    trial = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        pytest.skip("user and mount namespaces are denied here")


@pytest.mark.kernel
@pytest.mark.usefixtures("mount_namespaces")
@pytest.mark.parametrize("program", [FULL, FULL_BEFORE, READ_ONLY, READ_ONLY_AFTER_A_CRASH])
def test_a_disk_that_takes_nothing_harms_nothing(program: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", DISK + program, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
