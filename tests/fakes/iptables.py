"""iptables for chained plugins, alone in a folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def offer_iptables(folder: Path) -> Path | None:
    """Have a folder for a PATH with iptables in it; None where there is none.

    Without ip6tables: with it, portmap's CHECK looks for the IPv6 rules of pods that have no IPv6.
    """
    folder.mkdir()
    own = shutil.which("iptables")
    if own is None:
        return None
    (folder / "iptables").symlink_to(own)
    return folder
