"""Certificates for an etcd of a test: an authority, a server's for one address, a client's."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from podwire.model.config import EtcdConfig

if TYPE_CHECKING:
    from pathlib import Path

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make_certificates(folder: Path, address: str = "127.0.0.1") -> None:
    """Write `ca.pem`, and `.pem` and `.key` of `server` and `client`; older ones are replaced."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl: scripts/setup test")
    folder.mkdir(exist_ok=True)
    authority = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    _openssl(folder, "req", "-x509", *CURVE, *authority)
    for name, more in (("server", f"subjectAltName=IP:{address}"), ("client", "")):
        (folder / f"{name}.ext").write_text(more)
        request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        _openssl(folder, "req", *CURVE, *request)
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        files = ("-in", f"{name}.csr", "-extfile", f"{name}.ext", "-out", f"{name}.pem")
        _openssl(folder, "x509", "-req", *files, *signer)


def server_words(folder: Path) -> tuple[str, ...]:
    """Options of an etcd that shows its certificate and wants to see one."""
    return (
        f"--cert-file={folder}/server.pem",
        f"--key-file={folder}/server.key",
        f"--trusted-ca-file={folder}/ca.pem",
        "--client-cert-auth",
    )


def client_config(folder: Path, url: str) -> EtcdConfig:
    """How a client with a certificate connects."""
    return EtcdConfig(
        endpoints=(url,),
        ca_file=f"{folder}/ca.pem",
        cert_file=f"{folder}/client.pem",
        key_file=f"{folder}/client.key",
    )


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
