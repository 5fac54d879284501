"""On which links a chain sits, from what `nft list chains` prints."""

from __future__ import annotations

from podwire.model.nft_text import lacks_devices, with_devices

TEXT = """table netdev t {
\tchain one {
\t\ttype filter hook ingress device "br0" priority filter; policy accept;
\t}
\tchain several {
\t\ttype filter hook egress devices = { br0, "v*" } priority 7; policy drop;
\t}
\tchain plain {
\t}
}
table inet t {
\tchain one {
\t\ttype filter hook ingress device "eth0" priority filter; policy accept;
\t}
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t}
}
"""


def chain(family: str, name: str, hook: str | None, **more: object) -> dict[str, object]:
    told = {"family": family, "table": "t", "name": name, **more}
    return {"chain": told if hook is None else {**told, "hook": hook}}


ENTRIES: list[dict[str, object]] = [
    {"table": {"family": "netdev", "name": "t"}},
    chain("netdev", "one", "ingress"),
    chain("netdev", "several", "egress"),
    chain("netdev", "plain", None),
    chain("inet", "one", "ingress"),
    chain("inet", "input", "input"),
    chain("netdev", "told", "ingress", dev="eth7"),
    chain("netdev", "untold", "ingress"),
]


def test_links_are_put_beside_the_chains_that_lack_them() -> None:
    assert lacks_devices(ENTRIES)
    found = [entry.get("chain") for entry in with_devices(ENTRIES, TEXT)]
    devices = [each.get("dev") for each in found if isinstance(each, dict)]
    assert devices == [["br0"], ["br0", "v*"], None, ["eth0"], None, "eth7", None]


def test_chains_that_say_so_need_no_second_look() -> None:
    told = [chain("netdev", "told", "ingress", dev="eth7"), chain("ip", "input", "input")]
    assert not lacks_devices(told)
    assert with_devices(told, "") == tuple(told)
