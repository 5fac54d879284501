"""Random rule sets of the documented nftables subset."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random as Dice

V4 = ["10.2.0.2", "10.2.0.5", "10.1.0.3", "10.1.0.7", "10.99.0.1"]
NETWORKS = ["10.1.0.0/29", "10.2.0.0/29", "10.2.0.4/30", "10.0.0.0/8", "10.99.0.0/24"]
NAMES = ["wa", "wb", "w*", "wa*", "lo", "other"]
STATES = [
    "new",
    "established",
    "established,related",
    "invalid",
    "untracked",
    "{ new, invalid }",
    "!= established,related",
    "! established,related",
    "!= new",
]
PORTS = ["80", "53", "{ 80, 443 }", "1000-2000", "{ 53, 1000-1600 }", "8080", "20000-40000"]


def _ip(dice: Dice) -> str:
    side = dice.choice(["saddr", "daddr"])
    what = dice.choice(
        [
            dice.choice(V4),
            dice.choice(NETWORKS),
            "10.2.0.3-10.2.0.6",
            "{ 10.1.0.2, 10.2.0.2, 10.2.0.8/30 }",
            "@hosts",
            "@ranges",
        ]
    )
    return f"ip {side} {dice.choice(['', '', '', '!= '])}{what}"


def _ip6(dice: Dice) -> str:
    what = dice.choice(["fd02::3", "fd01::/125", "{ fd01::2, fd02::4-fd02::8 }"])
    return f"ip6 {dice.choice(['saddr', 'daddr'])} {dice.choice(['', '!= '])}{what}"


def _masked(dice: Dice) -> str:
    return dice.choice(
        ["ip daddr & 255.255.0.255 == 10.2.0.5", "ip saddr & 0.0.0.1 == 0.0.0.1",
         "ip daddr & 255.255.255.248 != 10.2.0.0"]
    )  # fmt: skip


def _ports(dice: Dice) -> str:
    protocol = dice.choice(["tcp", "udp"])
    side = dice.choice(["dport", "dport", "sport"])
    return f"{protocol} {side} {dice.choice(['', '', '!= '])}{dice.choice(PORTS)}"


def _concat(dice: Dice) -> str:
    return dice.choice(
        [
            "ip daddr . meta l4proto . th dport @services",
            "ip saddr . ip daddr { 10.1.0.2 . 10.2.0.2, 10.1.0.0/29 . 10.2.0.0/28 }",
            "ip daddr . tcp dport { 10.2.0.2 . 80, 10.2.0.0/29 . 400-500 }",
            "ip daddr . meta l4proto != { 10.2.0.2 . tcp, 10.2.0.3 . udp }",
        ]
    )


def _meta(dice: Dice) -> str:
    return dice.choice(
        [
            f"iifname {dice.choice(['', '!= '])}{dice.choice(NAMES)}",
            "iifname { wa, x* }",
            "meta l4proto { tcp, udp }",
            "meta l4proto != tcp",
            "meta l4proto icmp",
            "meta nfproto ipv4",
            "meta nfproto ipv6",
            "meta protocol ip",
            "meta pkttype host",
            "meta iiftype ether",
            "ip protocol { icmp, udp }",
            "ip6 nexthdr tcp",
            "ip ttl < 10",
            "ip ttl 3",
            "ip6 hoplimit > 10",
            "meta length 60",
            "ip length > 70",
            "meta skuid 0",
        ]
    )


def _out(dice: Dice) -> str:
    return f"oifname {dice.choice(['', '!= '])}{dice.choice(NAMES)}"


def _mark(dice: Dice) -> str:
    return dice.choice(
        ["mark 0x1", "mark & 0x2 == 0x2", "mark & 0x3 != 0", "mark 0", "mark != 0x5",
         "mark { 1, 3, 8-15 }", "mark > 2"]
    )  # fmt: skip


def _state(dice: Dice) -> str:
    return dice.choice(
        [
            f"ct state {dice.choice(STATES)}",
            f"ct state {dice.choice(STATES)}",
            "ct direction original",
            "ct direction reply",
            "ct mark 0x7",
            "ct mark & 0x3 == 0x3",
            "ct status dnat",
            "ct status snat",
            "ct original ip daddr 10.99.0.1",
            "ct original proto-dst 80",
        ]
    )


def _flags(dice: Dice) -> str:
    return dice.choice(
        ["tcp flags syn", "tcp flags & (fin|syn|rst|ack) == syn", "tcp flags syn / fin,syn,rst,ack",
         "tcp flags & (syn|ack) == syn | ack", "tcp flags != syn", "tcp flags ! syn,ack",
         "tcp flags syn,ack", "tcp flags & (syn|ack) != syn | ack",
         "icmp type echo-request", "icmp type { echo-reply, destination-unreachable }",
         "icmp code 0", "icmpv6 type { echo-request, echo-reply }", "icmp type != echo-reply"]
    )  # fmt: skip


def _fib(dice: Dice) -> str:
    return dice.choice(
        ["fib daddr type local", "fib daddr type != local", "fib saddr . iif oif missing",
         "fib saddr . iif oif exists", "fib saddr . mark . iif oif missing",
         "fib daddr type { unicast, broadcast }", "fib saddr type local", "fib saddr oif exists"]
    )  # fmt: skip


BASIC: list[Callable[[Dice], str]] = [
    _ip, _ip, _ip6, _ports, _ports, _concat, _meta, _mark, _state, _flags, _masked,
]  # fmt: skip
SETTERS = ["meta mark set 0x1", "meta mark set mark | 0x2", "meta mark set mark and 0xfe xor 0x5",
           "ct mark set 0x7", "ct mark set mark", "meta mark set ct mark", "counter", "log",
           "meta mark set ct mark and 0x3"]  # fmt: skip


def conditions(dice: Dice, hook: str) -> str:
    kinds = list(BASIC)
    if hook in {"forward", "postrouting"}:
        kinds.append(_out)
    if hook in {"prerouting", "forward"}:
        kinds.append(_fib)
    if hook == "raw":
        kinds.remove(_state)
    return " ".join(dice.choice(kinds)(dice) for _ in range(dice.choice([0, 1, 1, 2])))


def action(dice: Dice, chains: list[str]) -> str:
    kinds = ["accept", "drop", "return", *SETTERS]
    if dice.random() < 0.06:
        kinds = ["reject"]
    if chains and dice.random() < 0.35:
        return f"{dice.choice(['jump', 'goto'])} {dice.choice(chains)}"
    return dice.choice(kinds)


def vmap(dice: Dice, chains: list[str]) -> str:
    target = f"jump {chains[0]}" if chains else "accept"
    return dice.choice(
        [
            f"tcp dport vmap {{ 80 : {target}, 443 : drop, 1000-2000 : return }}",
            f"ct state vmap {{ established : accept, invalid : drop, new : {target} }}",
            f"iifname vmap {{ wa : {target}, wb : accept }}",
            f"ip daddr . meta l4proto vmap {{ 10.2.0.2 . tcp : drop, 10.2.0.3 . udp : {target} }}",
            "ip daddr vmap @verdicts",
            f"mark vmap {{ 1 : drop, 2-7 : {target} }}",
        ]
    )


def rules(dice: Dice, hook: str, chains: list[str], count: int) -> list[str]:
    found = []
    for _ in range(count):
        if dice.random() < 0.12 and hook != "raw":
            found.append(vmap(dice, chains))
            continue
        made = action(dice, chains)
        if made == "reject" and hook not in {"forward", "prerouting"}:
            made = "drop"
        found.append(f"{conditions(dice, hook)} {made}".strip())
    return found


def nat_rules(dice: Dice) -> tuple[list[str], list[str]]:
    before = [
        "ip daddr 10.99.0.1 tcp dport 80 dnat ip to 10.2.0.3:8080",
        "ip daddr 10.99.0.1 dnat ip to 10.2.0.4",
        "ip daddr 10.99.0.2 dnat ip to numgen random mod 2 map { 0 : 10.2.0.5, 1 : 10.2.0.6 }",
        "meta l4proto { tcp, udp } dnat ip to ip daddr . th dport map @backends",
        "ip daddr 10.2.0.2 udp dport 53 dnat ip to 10.2.0.9:5353",
        "ip6 daddr fd02::2 tcp dport 80 dnat ip6 to [fd02::5]:8080",
        "ip6 daddr fd02::3 dnat ip6 to fd02::6",
        "ip saddr 10.1.0.5 dnat ip to ip daddr map { 10.2.0.3 : 10.2.0.7 }",
        "ip daddr 10.99.0.0/24 numgen random mod 2 vmap { 0 : jump one, 1 : jump two }",
        f"{conditions(dice, 'nat')} accept",
    ]
    after = [
        "oifname wb masquerade",
        "oifname wb masquerade fully-random",
        "ip saddr 10.1.0.0/29 snat ip to 10.2.0.1",
        "ip saddr 10.1.0.9 snat ip to 10.2.0.200",
        "mark & 0x1 == 0x1 masquerade",
        "ip6 saddr fd01::/125 masquerade",
        "ip saddr 10.1.0.0/24 ip daddr 10.1.0.0/24 masquerade",
        "ct status dnat masquerade",
        f"{conditions(dice, 'postrouting')} masquerade",
        "meta l4proto udp return",
    ]
    return dice.sample(before, dice.randrange(1, 4)), dice.sample(after, dice.randrange(1, 4))


SETS = """
  set hosts { type ipv4_addr; elements = { 10.1.0.2, 10.1.0.4, 10.2.0.2, 10.2.0.9 } }
  set ranges { type ipv4_addr; flags interval; elements = { 10.1.0.0/30, 10.2.0.4-10.2.0.6 } }
  set services { type ipv4_addr . inet_proto . inet_service;
    elements = { 10.2.0.2 . tcp . 80, 10.2.0.5 . udp . 53, 10.99.0.1 . tcp . 443 } }
  map verdicts { type ipv4_addr : verdict; elements = { 10.2.0.2 : drop, 10.2.0.4 : accept } }
  map backends { type ipv4_addr . inet_service : ipv4_addr . inet_service;
    elements = { 10.99.0.1 . 443 : 10.2.0.7 . 8443, 10.99.0.2 . 80 : 10.2.0.8 . 80 } }
"""


def random_ruleset(dice: Dice) -> str:
    lines = ["flush ruleset", f"table inet t {{{SETS}"]
    chains = ["side", "deep"]
    lines += chain("deep", "", rules(dice, "nat", [], dice.randrange(1, 4)))
    lines += chain("side", "", rules(dice, "nat", ["deep"], dice.randrange(1, 4)))
    if dice.random() < 0.2:
        raw = [f"{conditions(dice, 'raw')} notrack"]
        lines += chain("raw", "type filter hook prerouting priority raw;", raw)
    for hook in ("prerouting", "forward", "forward", "postrouting"):
        if dice.random() < 0.35:
            continue
        policy = dice.choice(["accept", "accept", "accept", "drop"])
        number = len(lines)
        priority = dice.choice([-150, -110, -90, 0, 50, 110])
        head = f"type filter hook {hook} priority {priority}; policy {policy};"
        lines += chain(f"{hook}{number}", head, rules(dice, hook, chains, dice.randrange(1, 6)))
    if dice.random() < 0.6:
        before, after = nat_rules(dice)
        lines += chain("one", "", ["dnat ip to 10.2.0.10"])
        lines += chain("two", "", ["tcp dport 80 dnat ip to 10.2.0.11:81", "dnat ip to 10.2.0.11"])
        lines += chain("natpre", "type nat hook prerouting priority dstnat;", before)
        lines += chain("natpost", "type nat hook postrouting priority srcnat;", after)
    lines.append("}")
    return "\n".join(lines)


def chain(name: str, head: str, body: list[str]) -> list[str]:
    return [f"  chain {name} {{ {head}", *(f"    {rule}" for rule in body), "  }"]


def load_accepted(namespace: str, text: str, *, tries: int) -> str:
    """Load a rule set; rules that contradict themselves, which nft refuses, are left out."""
    for _ in range(tries):
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, "nft", "-f", "-"],
            input=text, text=True, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return text
        refused = {int(each) for each in re.findall(r"stdin:(\d+):", done.stderr)}
        lines = text.split("\n")
        kept = [line for number, line in enumerate(lines, start=1)
                if number not in refused or not line.startswith("    ")]  # fmt: skip
        assert len(kept) < len(lines), done.stderr + text
        text = "\n".join(kept)
    raise AssertionError(text)
