"""What else rules over a host's network: Calico, which excludes us; managers, with advice.

Only what stands in files and rule sets is looked at; nothing is changed.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.drivers.collect import collect_rules
from podwire.drivers.felix import find_felix
from podwire.drivers.rulesets import read_nft
from podwire.errors import InUse, PodwireError
from podwire.model.kernelstate import NamespaceRef, Read
from podwire.trace.forwarded import complaints

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "cali* tunl0 vxlan.calico"
SAVES = tuple(
    f"{family}tables{flavour}-save" for family in ("ip", "ip6") for flavour in ("", "-legacy")
)
CLEAN_UP = """for t in iptables iptables-legacy ip6tables ip6tables-legacy; do
    command -v $t-save >/dev/null && $t-save | grep -v -i cali | $t-restore; done
  ipset list -n | grep ^cali | xargs -rn1 ipset destroy
  nft delete table ip calico; nft delete table ip6 calico"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A file that tells of a manager, and what its owner should know."""

    path: str
    """Below /etc."""
    says: str = ""
    """Only when this stands in it."""
    settled: str = ""
    """Not when this stands in it."""
    advice: str


SIGNS = (
    Sign(
        path="dhcpcd.conf",
        settled="denyinterfaces cali",
        advice=f"dhcpcd takes every interface: add `denyinterfaces {OURS}` to /etc/dhcpcd.conf",
    ),
    Sign(
        path="connman/main.conf",
        settled="cali",
        advice="connman: add `cali,tunl0,vxlan.calico` to NetworkInterfaceBlacklist in"
        " /etc/connman/main.conf",
    ),
    Sign(path="wicked", advice=f"wicked: see that no ifcfg file names {OURS}"),
    Sign(
        path="network/interfaces",
        advice="ifupdown touches only what it names: see that /etc/network/interfaces names"
        f" none of {OURS}",
    ),
    Sign(
        path="cloud/cloud.cfg",
        advice="cloud-init writes the host's network configuration anew at boot: keep changes of"
        " your own in /etc/cloud/cloud.cfg.d, and see that `updates: network` has no `hotplug`",
    ),
    Sign(
        path="ufw/ufw.conf",
        says="ENABLED=yes",
        advice="ufw drops what is forwarded, pods' packets too: set DEFAULT_FORWARD_POLICY=ACCEPT"
        " in /etc/default/ufw, then `ufw reload`",
    ),
    Sign(
        path="systemd/system/multi-user.target.wants/firewalld.service",
        advice="firewalld rejects what its zones do not name: firewall-cmd --permanent"
        " --zone=trusted --add-source=POOL_CIDR --add-interface=tunl0 --add-interface=vxlan.calico,"
        " then firewall-cmd --reload",
    ),
)


def advice(etc: Path) -> Iterator[str]:
    """A sentence for each manager found that could get in the way."""
    for sign in SIGNS:
        path = etc / sign.path
        if not path.exists() and not path.is_symlink():
            continue
        text = path.read_text(errors="replace") if path.is_file() else ""
        if sign.says in text and not (sign.settled and sign.settled in text):
            yield sign.advice
    with suppress(PodwireError):  # who may not look is told by the agent's status
        yield from complaints(collect_rules(NamespaceRef(inode=0, name="this host")), _uplink())


def _uplink() -> str:
    """The device of the default route; any will do where there is none."""
    with suppress(OSError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            device, destination, *_ = line.split()
            if destination == "00000000":
                return device
    return "eth0"


def refuse_beside_calico() -> None:
    """Two owners of one routing table would fight, and Felix's rules drop what is not its own.

    Raises:
        InUse: Felix runs here, or its rules are left.
    """
    felix = find_felix()
    if felix is not None:
        raise InUse(
            f"Calico's agent runs here (process {felix})",
            fix="remove calico-node from this host first",
        )
    left = [name for name in SAVES if ":cali-" in _saved(name)]
    tables = _nft_objects("table")
    left += [f"table {each['family']} calico" for each in tables if each["name"] == "calico"]
    if not left and any(str(chain["name"]).startswith("cali-") for chain in _nft_objects("chain")):
        left.append("nft")
    if left:
        raise InUse(
            f"rules of Calico are left here ({', '.join(left)}):"
            " they drop unknown cali* interfaces",
            fix=f"clean up:\n  {CLEAN_UP}",
        )


def _saved(program: str) -> str:
    if shutil.which(program) is None:
        return ""
    done = subprocess.run([program], capture_output=True, text=True, check=False, errors="replace")
    return done.stdout


def _nft_objects(kind: str) -> list[dict[str, object]]:
    try:
        found = read_nft()
    except PodwireError:
        return []
    if not isinstance(found, Read):
        return []
    return [dict(each[kind]) for each in found.value if isinstance(each.get(kind), dict)]  # type: ignore[call-overload]  # a dict, as asked
