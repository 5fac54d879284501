"""Opening, naming and entering namespaces, and who keeps them alive."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers import namespaces
from podwire.drivers.namespace_table import look
from podwire.errors import BadInput, InUse, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable


def names_of_links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def test_a_name_is_made_as_ip_netns_makes_it() -> None:
    namespaces.create_named("blue")
    assert "blue" in subprocess.check_output(["ip", "netns"], text=True)
    subprocess.run(["ip", "netns", "add", "red"], check=True)
    assert namespaces.named().keys() == {"blue", "red"}
    with pytest.raises(InUse, match="blue"):
        namespaces.create_named("blue")
    namespaces.delete_named("red")
    subprocess.run(["ip", "netns", "delete", "blue"], check=True)
    assert namespaces.named() == {}
    with pytest.raises(NotFound, match="blue"):
        namespaces.delete_named("blue")


def test_a_plain_file_is_no_name_and_can_be_taken_away() -> None:
    namespaces.create_named("blue")
    namespaces.named_path("left-over").touch()
    assert namespaces.named().keys() == {"blue"}
    namespaces.delete_named("left-over")
    assert not namespaces.named_path("left-over").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\0b", "x" * 256])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        namespaces.create_named(name)
    with pytest.raises(BadInput):
        namespaces.delete_named(name)


def test_only_network_namespaces_are_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in ("/etc/passwd", "/nope", "/proc/self/ns/mnt", "/tmp", "/dev/null", pipe, "a\0b"):
        with pytest.raises(BadInput):
            namespaces.open_namespace(path)
    with namespaces.opened("/proc/self/ns/net") as descriptor:
        assert namespaces.inode_of(descriptor) == Path("/proc/self/ns/net").stat().st_ino
        assert not os.get_inheritable(descriptor)


def test_a_call_in_a_namespace_changes_no_other_thread(
    make_namespace: Callable[[str], int],
) -> None:
    pod = make_namespace("pod")
    here = Path("/proc/thread-self/ns/net").stat().st_ino
    there = namespaces.call_in(pod, lambda: Path("/proc/thread-self/ns/net").stat().st_ino)
    assert there == namespaces.inode_of(pod) != here
    assert Path("/proc/thread-self/ns/net").stat().st_ino == here

    def fail() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        namespaces.call_in(pod, fail)


def test_a_namespace_lives_as_long_as_something_holds_it(
    make_namespace: Callable[[str], int],
) -> None:
    pod = make_namespace("pod")
    inode = namespaces.inode_of(pod)
    with namespaces.opened("/run/netns/pod"):
        sleeper = subprocess.Popen(["ip", "netns", "exec", "pod", "cat"], stdin=subprocess.PIPE)
        assert sleeper.stdin is not None
        while sleeper.pid not in namespaces.holders().get(inode, ()):
            assert sleeper.poll() is None
        [seen] = [one for one in look().namespaces if one.inode == inode]
        assert seen.names == ("pod",)
        assert [process.pid for process in seen.processes] == [sleeper.pid]
        assert {one.pid for one in seen.descriptors} == {os.getpid()}
        assert not seen.own

        namespaces.delete_named("pod")
        [seen] = [one for one in look().namespaces if one.inode == inode]
        assert seen.names == ()
        assert sleeper.pid in {process.pid for process in seen.processes}
        with namespaces.opened(seen.path) as descriptor:
            assert namespaces.inode_of(descriptor) == inode

        sleeper.stdin.close()
        sleeper.wait()
    # Now only the fixture's descriptor is left.
    [seen] = [one for one in look().namespaces if one.inode == inode]
    assert (seen.processes, len(seen.descriptors)) == ((), 1)


def test_a_mount_elsewhere_is_seen(tmp_path: Path, make_namespace: Callable[[str], int]) -> None:
    inode = namespaces.inode_of(make_namespace("pod"))
    place = tmp_path / "a b"
    place.touch()
    namespaces.mount("/run/netns/pod", place, flags=namespaces.MS_BIND)
    [seen] = [one for one in look().namespaces if one.inode == inode]
    assert str(place) in seen.mounts
    assert namespaces.paths()[inode] == "/run/netns/pod"
    namespaces.unmount(place)


def test_the_own_namespace_is_marked() -> None:
    own = Path("/proc/thread-self/ns/net").stat().st_ino
    assert [one.inode for one in look(descriptors=False).namespaces if one.own] == [own]
