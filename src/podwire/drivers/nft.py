"""Our table of nftables, written through the program `nft`: one transaction, all or nothing."""

from __future__ import annotations

import shutil
import subprocess

from podwire.errors import KernelError, Unsupported

TIMEOUT_S = 10.0


def write_rules(text: str) -> None:
    """Carry out a script in the calling thread's network namespace.

    Raises:
        Unsupported: there is no nft here, or no nf_tables in the kernel.
        KernelError: it was refused; nothing was changed.
    """
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise Unsupported("there is no program nft here", fix="install nftables")
    done = subprocess.run(
        [program, "-f", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        problem = done.stderr.strip().partition("\n")[0]
        if "Protocol not supported" in problem:
            raise Unsupported("this kernel has no nf_tables", fix="modprobe nf_tables")
        raise KernelError(f"nftables: {problem}", errno=22, subject="table ip podwire")
