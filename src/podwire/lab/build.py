"""Carries out the fabric's operations through netlink."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self, assert_never

from podwire.drivers import namespaces, sysctl
from podwire.drivers.netlink import requests
from podwire.drivers.netlink.session import Session
from podwire.errors import KernelError, NotFound, Unsupported
from podwire.lab.fabric import (
    AddAddress,
    AddBridge,
    AddDefaultRoute,
    AddNamespace,
    AddPort,
    AddVeth,
    SetSysctl,
    SetUp,
)
from podwire.model.addressing import parse_network
from podwire.model.link import IPIP_DEVICE, Address
from podwire.model.route import PROTOCOL_BOOT, NextHop, Route, RouteKey

if TYPE_CHECKING:
    from podwire.lab.fabric import Operation

DEFAULT = parse_network("0.0.0.0/0")


class Builder:
    """Runs operations; keeps one session and descriptor for each namespace until it is closed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._opened: dict[str, tuple[int, Session]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, operation: Operation) -> None:
        """Carry out one operation.

        Raises:
            KernelError: the kernel refuses; names the object.
        """
        match operation:
            case AddNamespace():
                namespaces.create_named(operation.name)
            case AddBridge():
                self._session(operation.namespace).run(requests.create_bridge(operation.name))
            case AddVeth():
                self._add_veth(operation)
            case AddPort():
                bridge = self._index(operation.namespace, operation.bridge)
                self._session(operation.namespace).run(
                    requests.set_link(operation.name, master=bridge)
                )
            case SetUp():
                self._session(operation.namespace).run(requests.set_link(operation.name, up=True))
            case AddAddress():
                self._add_address(operation)
            case AddDefaultRoute():
                self._add_default_route(operation)
            case SetSysctl():
                namespaces.call_in(
                    self._descriptor(operation.namespace),
                    sysctl.write,
                    operation.setting,
                    operation.value,
                )
            case _:
                assert_never(operation)

    def _add_veth(self, operation: AddVeth) -> None:
        self._session(operation.namespace).run(
            requests.create_veth(
                operation.name,
                peer_name=operation.peer_name,
                peer_namespace=self._descriptor(operation.peer_namespace),
            )
        )

    def _add_address(self, operation: AddAddress) -> None:
        address = Address(
            device=self._index(operation.namespace, operation.name), interface=operation.address
        )
        self._session(operation.namespace).run(requests.replace_address(address))

    def _add_default_route(self, operation: AddDefaultRoute) -> None:
        device = self._index(operation.namespace, operation.name)
        route = Route(
            key=RouteKey(destination=DEFAULT),
            protocol=PROTOCOL_BOOT,
            hops=(NextHop(device=device, gateway=operation.gateway),),
        )
        self._session(operation.namespace).run(requests.replace_route(route))

    def _index(self, namespace: str, name: str) -> int:
        link = self._session(namespace).link(name)
        if link is None:
            raise NotFound(f"device {name} does not exist in {namespace}")
        return link.index

    def _descriptor(self, namespace: str) -> int:
        return self._open(namespace)[0]

    def _session(self, namespace: str) -> Session:
        return self._open(namespace)[1]

    def _open(self, namespace: str) -> tuple[int, Session]:
        if namespace not in self._opened:
            descriptor = namespaces.open_namespace(namespaces.named_path(namespace))
            self._stack.callback(os.close, descriptor)
            session = self._stack.enter_context(Session.open(descriptor))
            self._opened[namespace] = descriptor, session
        return self._opened[namespace]


def kernel_has_ipip() -> bool:
    """Whether this kernel can make IPIP tunnels, found out by trying to make one here.

    Loading the module makes tunl0 in every namespace, so that one counts as well.
    """
    with Session.open() as session:
        if session.link(IPIP_DEVICE) is not None:
            return True
        try:
            session.run(requests.create_ipip(IPIP_DEVICE))
        except (KernelError, Unsupported):
            return session.link(IPIP_DEVICE) is not None
    return True
