"""A local namespace is reached by path and by process, and the caller stays where it is."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from podwire.drivers import namespaces
from podwire.drivers.transport import Local, LocalNamespace, parse_transport

if TYPE_CHECKING:
    from collections.abc import Callable

INODE = ["stat", "-Lc", "%i", "/proc/self/ns/net"]


def test_the_program_runs_in_the_namespace(make_namespace: Callable[[str], int]) -> None:
    descriptor = make_namespace("blue")
    before = Local().run(INODE).stdout
    there = parse_transport("netns:blue").run(INODE)
    assert int(there.stdout) == namespaces.inode_of(descriptor)
    assert Local().run(INODE).stdout == before != there.stdout


def test_a_process_names_its_namespace(make_namespace: Callable[[str], int]) -> None:
    descriptor = make_namespace("blue")
    holder = namespaces.call_in(descriptor, subprocess.Popen, ["sleep", "600"])
    try:
        done = parse_transport(f"pid:{holder.pid}").run(INODE)
    finally:
        holder.kill()
        holder.wait()
    assert int(done.stdout) == namespaces.inode_of(descriptor)


def test_input_and_code_come_through(make_namespace: Callable[[str], int]) -> None:
    make_namespace("blue")
    done = LocalNamespace("/run/netns/blue").run(
        ["sh", "-s"], stdin="echo out; echo err >&2; exit 3"
    )
    assert (done.code, done.stdout, done.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize("path", ["/proc/self/ns/user", os.devnull])
def test_what_is_no_network_namespace_is_refused(path: str) -> None:
    with pytest.raises(Exception, match="not a network namespace"):
        LocalNamespace(path).run(["true"])
