"""A node's answer is cut where our lines are, whatever it holds; what is not understood is told."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from podwire.drivers.node_script import SCRIPT, parse_report
from podwire.drivers.remote_collect import collect_node
from podwire.drivers.transport import Finished
from podwire.errors import BadInput, Transient
from podwire.model import iproute_json
from podwire.model.kernelstate import KernelState, Missing, Read

MARK = "f00d"


@dataclass
class Recorded:
    """A node that answers what was written down, with the mark it is asked with."""

    text: str
    title: str = "recorded"
    code: int = 0
    asked: list[list[str]] = field(default_factory=list)

    def run(self, argv: list[str], stdin: str | None = None, timeout_s: float = 1) -> Finished:
        assert stdin == SCRIPT
        self.asked.append(list(argv))
        return Finished(
            code=self.code, stdout=self.text.replace(MARK, argv[-1]), stderr="Warning\nkex: reset"
        )


HEAD = f"Last login: today\n\n@{MARK} fact boot b\n\n@{MARK} fact time 5\n\n@{MARK} fact here 7\n"
SPACE = f"\n@{MARK} name 7 blue\n\n@{MARK} netns 7 /run/netns/blue\n"
DONE = f"\n@{MARK} done\n"
LO = (
    '[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK"],"mtu":65536,'
    '"ifalias":"\\n@beef end links 0","operstate":"DOWN"}]\n'
)


def section(name: str, text: str, code: int = 0, complaint: str = "") -> str:
    return f"\n@{MARK} begin {name}\n{text}\n@{MARK} end {name} {code}\n{complaint}"


def state(*parts: str) -> KernelState:
    node = Recorded("".join((HEAD, SPACE, *parts, DONE)))
    [found] = collect_node("n", node).states  # type: ignore[arg-type]
    return found


def test_a_section_is_read_and_the_others_are_missing() -> None:
    found = state(section("links", LO))
    assert isinstance(found.links, Read)
    assert found.links.time_ns == 5_000_000_000
    assert found.links.value[0].alias == "\n@beef end links 0"
    assert isinstance(found.fdb, Missing)
    assert (found.namespace.name, found.namespace.root, found.namespace.node) == ("blue", True, "n")


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (section("fdb", "", 127, "bridge is not installed\n"), "bridge is not installed"),
        (section("fdb", "", 1, "RTNETLINK answers: Operation not permitted\n"), "not permitted"),
        (section("fdb", "", 9), "code 9"),
        (section("fdb", "[{"), "no JSON"),
        (section("fdb", "{}"), "no list"),
        (section("fdb", '[{"ifname":"gone"}]'), "no link 'gone'"),
        (section("fdb", '[{"mac":"x"}]'), "entry 0"),
        (section("nft", "segfault"), "nft"),
        (section("sockets", "tcp\n"), "ss"),
    ],
)
def test_a_section_that_is_not_understood_says_why(part: str, reason: str) -> None:
    found = state(section("links", LO), part)
    assert isinstance(found.links, Read)
    missing = [each for each in (found.fdb, found.nft, found.sockets) if isinstance(each, Missing)]
    assert any(reason in each.reason for each in missing), missing


def test_a_kernel_without_ipv6_has_no_routes_of_it() -> None:
    found = state(
        section("links", LO),
        section("routes4", "[]"),
        section("routes6", "", 2, "RTNETLINK answers: Operation not supported\n"),
    )
    assert found.routes == Read((), time_ns=5_000_000_000)


def test_a_namespace_that_cannot_be_entered_says_why() -> None:
    found = state("nsenter: reassociate to namespace 'ns/net' failed: Operation not permitted\n")
    assert isinstance(found.links, Missing)
    assert "reassociate" in found.links.reason


@pytest.mark.parametrize(
    "text", ["", HEAD, HEAD + SPACE + section("links", LO), "zsh: no such user"]
)
def test_an_answer_that_broke_off_is_no_answer(text: str) -> None:
    with pytest.raises(Transient, match=r"kex: reset .exit code 255"):
        collect_node("n", Recorded(text, code=255))  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ["netns x /p", "what", "end links 0", "begin", "fact a"])
def test_a_line_that_is_not_ours_is_refused(line: str) -> None:
    with pytest.raises(BadInput, match="not ours"):
        parse_report(f"\n@{MARK} {line}\n", MARK)


def test_an_old_ip_that_prints_names_is_found_out() -> None:
    text = '[{"type":"unicast","dst":"default","dev":"lo","protocol":"kernel","flags":[]}]'
    with pytest.raises(BadInput, match="-N"):
        iproute_json.parse_routes(text, 4, {"lo": 1})


def test_sockets_are_told_as_the_kernel_tells_them() -> None:
    text = """udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*
tcp LISTEN 0 128 *:80 *:*
tcp LISTEN 0 128 [::1]:631 [::]:*
tcp LISTEN 0 128 [fe80::1]%eth0:22 [::]:*
"""
    assert iproute_json.parse_sockets(text) == (
        "tcp :: 80", "tcp ::1 631", "tcp fe80::1 22", "udp 127.0.0.53 53",
    )  # fmt: skip
