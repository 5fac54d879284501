"""iptables for chained plugins: the system's own, or that of Debian's package, not installed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.fakes.cni_programs import CACHE

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = CACHE / "debs" / "iptables"


def offer_iptables(folder: Path) -> Path | None:
    """Have a folder for a PATH with iptables in it; None where there is none to be had.

    Without ip6tables: with it, portmap's CHECK looks for the IPv6 rules of pods that have no IPv6.
    """
    folder.mkdir()
    program = folder / "iptables"
    if (own := shutil.which("iptables")) is not None:
        program.symlink_to(own)
        return folder
    unpacked = PACKAGE / "usr" / "sbin" / "xtables-nft-multi"
    if not unpacked.exists():
        return None
    libraries = next(PACKAGE.glob("usr/lib/*-linux-gnu"))
    program.write_text(
        f"#!/bin/sh\nLD_LIBRARY_PATH={libraries} XTABLES_LIBDIR={libraries}/xtables"
        f' exec {unpacked} iptables "$@"\n'
    )
    program.chmod(0o755)
    return folder
