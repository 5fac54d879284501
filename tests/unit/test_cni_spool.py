"""The spool: what is kept survives, what is broken is set aside, nothing holds up the rest."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from podwire.agent.spool import Spool
from podwire.errors import BadInput, DatastoreUnavailable
from podwire.model.endpoint import AttachmentKey

if TYPE_CHECKING:
    from pathlib import Path


def key(name: str) -> AttachmentKey:
    return AttachmentKey(network="pods", container_id=name, interface="eth0")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "deep" / "spool")
    made.prepare()
    return made


def drained(spool: Spool) -> list[AttachmentKey]:
    done: list[AttachmentKey] = []
    spool.drain(done.append)
    return done


def test_what_is_kept_is_done_once_and_in_order(spool: Spool) -> None:
    for name in ("a", "b", "c"):
        spool.keep(key(name))
    assert drained(spool) == [key("a"), key("b"), key("c")]
    assert drained(spool) == []
    assert list(spool.directory.iterdir()) == []


def test_only_its_owner_may_look(spool: Spool) -> None:
    spool.keep(key("a"))
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(spool.pending()[0].stat().st_mode) == 0o600
    spool.directory.chmod(0o755)
    spool.prepare()
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700


def test_one_attachment_alone_may_be_done(spool: Spool) -> None:
    spool.keep(key("a"))
    spool.keep(key("b"))
    done: list[AttachmentKey] = []
    assert spool.drain(done.append, only=key("b")) == 1
    assert done == [key("b")]
    assert drained(spool) == [key("a")]


def test_one_that_fails_waits_and_holds_up_no_other(spool: Spool) -> None:
    spool.keep(key("a"))
    spool.keep(key("b"))

    def detach(which: AttachmentKey) -> None:
        if which == key("a"):
            raise DatastoreUnavailable("away")

    assert spool.drain(detach) == 1
    assert drained(spool) == [key("a")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"\0",
        b"\0{}",
        b"CNI_CONTAINERID=a\0CNI_IFNAME=eth0\0\0{}",
        b"CNI_CONTAINERID=../a\0CNI_IFNAME=eth0\0\0" + b'{"name":"pods"}',
        b"CNI_CONTAINERID=a\0CNI_IFNAME=a/b\0\0" + b'{"name":"pods"}',
    ],
)
def test_a_broken_file_is_set_aside(spool: Spool, content: bytes) -> None:
    (spool.directory / "1-1.del").write_bytes(content)
    spool.keep(key("a"))
    assert drained(spool) == [key("a")]
    assert [path.name for path in spool.directory.iterdir()] == ["1-1.broken"]


def test_half_written_and_foreign_files_are_left_alone(spool: Spool) -> None:
    for name in (".1-1.del", "readme", "1.del.tmp"):
        (spool.directory / name).write_text("x")
    assert drained(spool) == []
    assert len(list(spool.directory.iterdir())) == 3


def test_a_link_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (spool.directory / "1-1.del").symlink_to(tmp_path / "elsewhere")
    assert drained(spool) == []
    assert (tmp_path / "elsewhere").exists()


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    with pytest.raises(BadInput, match="spoolDir"):
        Spool(tmp_path / "spool").prepare()
