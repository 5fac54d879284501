"""Bundles hold what was put in; one that is damaged, foreign or hostile is refused by member."""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.bundle import FOLDER, Facts, read_bundle, write_bundle
from podwire.errors import BadInput
from podwire.model.kernelstate import KernelState, Missing, NamespaceRef, Read
from podwire.model.link import Link
from podwire.model.statecodec import encode_state

if TYPE_CHECKING:
    from pathlib import Path

FACTS = Facts(podwire="0.1.0", host="vms103", kernel="6.18.5", time_ns=1_795_395_607_681_844_078)
LO = Link(index=1, name="lo", mtu=65536, up=True, carrier=True, loopback=True)
STATES = (
    KernelState(namespace=NamespaceRef(inode=1, node="vms103", root=True), links=Read((LO,))),
    KernelState(
        namespace=NamespaceRef(inode=2, pod="demo/../web 0/ü"), links=Missing("may not be entered")
    ),
    KernelState(namespace=NamespaceRef(inode=3, pod="demo/../web 0/ü")),
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.tgz"
    write_bundle(path, STATES, FACTS)
    return path


def test_what_was_written_is_read(bundle: Path) -> None:
    found = read_bundle(bundle)
    assert found.facts == FACTS
    assert found.states == STATES
    assert bundle.stat().st_mode & 0o777 == 0o600


def test_the_unpacked_folder_is_read_too(bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(bundle) as archive:
        archive.extractall(tmp_path)
    assert read_bundle(tmp_path / FOLDER).states == STATES


def test_nothing_is_left_of_a_bundle_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "old.tgz"
    write_bundle(path, STATES[:1], FACTS)
    with pytest.raises(AttributeError):
        write_bundle(path, (STATES[0], "no state"), FACTS)  # type: ignore[arg-type]
    assert read_bundle(path).states == STATES[:1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        write_bundle(tmp_path / "nowhere" / "bundle.tgz", STATES, FACTS)


@pytest.mark.parametrize("kept", [0, 10, 200, -3])
def test_a_bundle_that_was_cut_off_is_damaged(bundle: Path, kept: int) -> None:
    bundle.write_bytes(bundle.read_bytes()[:kept])
    with pytest.raises(BadInput, match=r"bundle\.tgz"):
        read_bundle(bundle)


def test_one_flipped_bit_is_noticed(bundle: Path) -> None:
    whole = bundle.read_bytes()
    for place in range(12, len(whole), 37):
        bundle.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(BadInput, match=r"bundle\.tgz"):
            read_bundle(bundle)


def test_what_is_none_says_so(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no archive at all\n" * 100)
    for path in (text, tmp_path / "absent.tgz", tmp_path):
        with pytest.raises(BadInput, match=path.name):
            read_bundle(path)


def packed(tmp_path: Path, *members: tuple[tarfile.TarInfo | str, bytes]) -> Path:
    path = tmp_path / "made.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MANIFEST = (
    b'{"schema":"podwire.bundle/v1","later":1,'
    b'"facts":{"podwire":"9","host":"h","kernel":"k","time_ns":1},'
    b'"states":[{"file":"states/1.json","inode":1,"title":"vms103"}]}'
)


def test_a_later_versions_bundle_is_read(tmp_path: Path) -> None:
    path = packed(
        tmp_path,
        (f"{FOLDER}/states/1.json", encode_state(STATES[0])),
        (f"{FOLDER}/routes.txt", b"for people"),
        (f"{FOLDER}/{'manifest.json'}", MANIFEST),
    )
    assert read_bundle(path).states == STATES[:1]


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("member", "content", "says"),
    [
        ("../../etc/passwd", b"", "leads out of the bundle"),
        ("/etc/passwd", b"", "leads out of the bundle"),
        (f"{FOLDER}/../../x", b"", "leads out of the bundle"),
        (link(f"{FOLDER}/states/1.json"), b"", "no plain file"),
        (f"{FOLDER}/states/1.json", b"{", "states/1.json is damaged"),
        (f"{FOLDER}/states/1.json", b'{"schema":"x","namespace":{"inode":1}}', "'x'"),
        (f"{FOLDER}/manifest.json", b"[]", "manifest.json is damaged"),
        (f"{FOLDER}/manifest.json", MANIFEST.replace(b"/v1", b"/v7"), "podwire.bundle/v7"),
        (f"{FOLDER}/manifest.json", MANIFEST, r"states/1.json (vms103) is missing"),
        (f"{FOLDER}/states/1.json", encode_state(STATES[0]), "manifest.json"),
    ],
)
def test_a_foreign_member_is_named(
    tmp_path: Path, member: tarfile.TarInfo | str, content: bytes, says: str
) -> None:
    with pytest.raises(BadInput) as caught:
        read_bundle(packed(tmp_path, (member, content)))
    assert says in caught.value.message


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.REGTYPE, None])
def test_a_file_that_swells_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes | None
) -> None:
    """A header that is read whole, a member nobody asked for, zeros after the end."""
    monkeypatch.setattr("podwire.drivers.bundle.SMALL_BYTES", 1 << 20)
    path = tmp_path / "bundle.tgz"
    zeros = bytes(8 << 20)
    with gzip.open(path, "wb") as file:
        if kind is not None:
            info = tarfile.TarInfo(f"{FOLDER}/more")
            info.type, info.size = kind, len(zeros)
            file.write(info.tobuf(tarfile.GNU_FORMAT))
        else:
            file.write(bytes(2 * tarfile.BLOCKSIZE))
        file.write(zeros)
    with pytest.raises(BadInput, match="far more than it should"):
        read_bundle(path)


def test_a_large_bundle_of_pods_alike_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podwire.drivers.bundle.SMALL_BYTES", 0)
    links = Read(tuple(replace(LO, index=number, name=f"l{number}") for number in range(1, 9)))
    states = [KernelState(namespace=NamespaceRef(inode=n), links=links) for n in range(1, 500)]
    write_bundle(tmp_path / "many.tgz", states, FACTS)
    assert len(read_bundle(tmp_path / "many.tgz").states) == len(states)
