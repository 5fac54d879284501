"""Random rule sets below IP: families bridge and netdev, for a switch with ports wa and wb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kernel.trace_rulesets import BASIC, NAMES, action, chain

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random as Dice

MACS = {
    "ea": "02:00:00:00:00:0a",
    "eb": "02:00:00:00:00:0b",
    "ec": "02:00:00:00:00:0c",
    "wa": "02:00:00:00:01:0a",
    "wb": "02:00:00:00:01:0b",
    "wc": "02:00:00:00:01:0c",
    "br0": "02:00:00:00:01:00",
}
PRIORITIES = [-300, -200, -1, 0, 1, 100]
SETTERS = ["meta mark set 0x1", "meta mark set mark | 0x2", "counter", "log"]
_IP, _IP6, _PORTS, _MASKED = BASIC[0], BASIC[2], BASIC[3], BASIC[-1]


def _ether(dice: Dice) -> str:
    macs = list(MACS.values())
    side = dice.choice(["saddr", "daddr"])
    one, two = dice.choice(macs), dice.choice(macs)
    return dice.choice(
        [
            f"ether {side} {dice.choice(['', '!= '])}{one}",
            f"ether {side} {{ {one}, {two} }}",
            f"ether {side} & ff:ff:ff:ff:ff:00 == 02:00:00:00:00:00",
            f"ether {side} & 00:00:00:00:01:00 != 0",
            f"ether {side} . ip daddr {{ {one} . 10.2.0.2, {two} . 10.2.0.5 }}",
            f"ether {side} 02:00:00:00:00:00-02:00:00:00:00:ff",
            "ether type ip",
            "ether type { ip6, arp }",
            "ether type != arp",
        ]
    )


def _meta(dice: Dice) -> str:
    return dice.choice(
        [
            "meta pkttype host",
            "meta pkttype other",
            "meta pkttype != { other, broadcast }",
            "meta protocol ip",
            "meta protocol ip6",
            "meta l4proto { tcp, udp }",
            "meta l4proto icmp",
            "meta length > 70",
            "meta length 60",
            "meta iiftype ether",
            "arp operation request",
            "vlan id 5",
            "icmp type echo-request",
            "icmpv6 type echo-reply",
            "ip ttl 3",
            "tcp flags syn",
        ]
    )


def _mark(dice: Dice) -> str:
    return dice.choice(["mark 0x1", "mark & 0x2 == 0x2", "mark 0", "mark { 1, 3, 8-15 }"])


def _link(dice: Dice, hook: str) -> str:
    names = [*NAMES, "br0", "br*"]
    side = {"prerouting": "iif", "ingress": "iif", "input": "iif", "forward": dice.choice(
        ["iif", "oif"])}.get(hook, "oif")  # fmt: skip
    return f"{side}name {dice.choice(['', '!= '])}{dice.choice(names)}"


KINDS: list[Callable[[Dice], str]] = [_IP, _IP6, _PORTS, _MASKED, _ether, _ether, _meta, _mark]


def _conditions(dice: Dice, hook: str, sets: bool) -> str:
    found = []
    for _ in range(dice.choice([0, 1, 1, 2])):
        made = _link(dice, hook) if dice.random() < 0.25 else dice.choice(KINDS)(dice)
        while "@" in made and not sets:
            made = dice.choice(KINDS)(dice)
        found.append(made)
    return " ".join(found)


def _vmap(dice: Dice) -> str:
    return dice.choice(
        [
            "ether type vmap { ip6 : accept, arp : drop, ip : jump side }",
            "tcp dport vmap { 80 : jump side, 443 : drop, 1000-2000 : return }",
            f"ether daddr vmap {{ {MACS['eb']} : jump side, {MACS['ea']} : accept }}",
            "meta pkttype vmap { host : accept, other : jump side }",
        ]
    )


def _rules(dice: Dice, hook: str, chains: list[str]) -> list[str]:
    found = []
    for _ in range(dice.randrange(1, 5)):
        if chains and dice.random() < 0.12:
            found.append(_vmap(dice))
            continue
        made = action(dice, chains)
        if made == "reject" or "ct " in made:
            made = dice.choice(["drop", *SETTERS])
        found.append(f"{_conditions(dice, hook, sets=False)} {made}".strip())
    return found


def below_ip(dice: Dice) -> str:
    """Tables of both families, to be loaded beside IP's."""
    lines = ["table bridge b {"]
    lines += chain("side", "", _rules(dice, "prerouting", []))
    for number, hook in enumerate(("prerouting", "forward", "forward", "postrouting", "input")):
        if dice.random() < 0.4:
            continue
        policy = dice.choice(["accept", "accept", "accept", "drop"])
        priority = dice.choice(PRIORITIES)
        head = f"type filter hook {hook} priority {priority}; policy {policy};"
        lines += chain(f"{hook}{number}", head, _rules(dice, hook, ["side"]))
    lines += ["}", "table netdev n {"]
    lines += chain("side", "", _rules(dice, "ingress", []))
    for number in range(dice.randrange(3)):
        hook = dice.choice(["ingress", "egress"])
        device = dice.choice(["wa", "wb", "wc", "br0"])
        priority = dice.choice(PRIORITIES)
        policy = dice.choice(["accept", "accept", "accept", "drop"])
        head = f"type filter hook {hook} device {device} priority {priority}; policy {policy};"
        lines += chain(f"{hook}{number}", head, _rules(dice, hook, ["side"]))
    lines.append("}")
    if dice.random() < 0.3:
        head = f"type filter hook ingress device {dice.choice(['wa', 'br0'])} priority 0;"
        lines += ["table inet beside {", *chain("i", head, _rules(dice, "ingress", [])), "}"]
    return "\n".join(lines)
