"""What Calico leaves in an etcd: the files of tests/golden/calico, and stores filled with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from podwire.drivers.store.jsontext import from_stored

if TYPE_CHECKING:
    from podwire.boundary import Store
    from podwire.model.resource import Wire

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "calico"
RELEASES = tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))


def texts(release: str) -> dict[str, str]:
    """Key → value as it lies in etcd: a key at the margin, its value in the line below."""
    lines = (FOLDER / f"{release}.txt").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    keys = [line for line in lines if line.startswith("/")]
    values = [line.removeprefix("  ") for line in lines if not line.startswith("/")]
    return dict(zip(keys, values, strict=True))


def values(release: str) -> dict[str, Wire]:
    return {key: from_stored(key, text) for key, text in texts(release).items()}


def fill(store: Store, release: str) -> dict[str, Wire]:
    """Write all of it into an empty store; what was written."""
    written = values(release)
    for key, value in written.items():
        store.create(key, value)
    return written


def contents(store: Store) -> dict[str, Wire]:
    return {entry.key: entry.value for entry in store.list("").entries}
