"""What a kubelet asks of a container runtime, over its socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from tests.fakes.cri import cri_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from google.protobuf.message import Message

    A = TypeVar("A", bound=Message)

TIMEOUT_S = 60.0


class CRI:
    """One runtime."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def _call(self, method: str, request: Message, answer: type[A]) -> A:
        call: Any = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        told: A = call(request, timeout=TIMEOUT_S)
        return told

    def conditions(self) -> dict[str, bool]:
        told = self._call("Status", pb.StatusRequest(), pb.StatusResponse)
        return {each.type: each.status for each in told.status.conditions}

    def network(self) -> bytes:
        """What it says of itself at length; the network list it has loaded is somewhere in it."""
        call: Any = self._channel.unary_unary("/runtime.v1.RuntimeService/Status")
        told: bytes = call(b"\x08\x01", timeout=TIMEOUT_S)  # StatusRequest{verbose: true}
        return told

    def run_pod(self, config: pb.PodConfig) -> str:
        """The sandbox's id."""
        told = self._call("RunPodSandbox", pb.RunPodRequest(config=config), pb.RunPodResponse)
        return str(told.pod)

    def address(self, pod: str) -> str:
        told = self._call("PodSandboxStatus", pb.PodRequest(pod=pod), pb.PodStatusResponse)
        return str(told.status.network.ip)

    def start_container(self, pod: str, config: pb.PodConfig, image: str, *command: str) -> str:
        """The container's id."""
        request = pb.CreateContainerRequest(
            pod=pod,
            config=pb.ContainerConfig(
                metadata=pb.ContainerMetadata(name="main"),
                image=pb.ImageName(image=image),
                command=command,
            ),
            pod_config=config,
        )
        made = self._call("CreateContainer", request, pb.Container)
        self._call("StartContainer", pb.Container(id=made.id), pb.Nothing)
        return str(made.id)

    def run(self, container: str, *command: str) -> str:
        """What a command printed in the container; it has to end with 0."""
        request = pb.ExecRequest(container=container, command=command, timeout=30)
        told = self._call("ExecSync", request, pb.ExecResponse)
        assert told.exit_code == 0, (command, told.stdout, told.stderr)
        return told.stdout.decode()

    def remove_pod(self, pod: str) -> None:
        self._call("StopPodSandbox", pb.PodRequest(pod=pod), pb.Nothing)
        self._call("RemovePodSandbox", pb.PodRequest(pod=pod), pb.Nothing)

    def close(self) -> None:
        self._channel.close()


def pod_config(name: str, annotations: Mapping[str, str] | None = None) -> pb.PodConfig:
    """A pod as the kubelet would have it made."""
    return pb.PodConfig(
        metadata=pb.PodMetadata(name=name, uid=f"uid-{name}", namespace="demo"),
        hostname=name,
        annotations=annotations or {},
        linux=pb.PodLinux(),
    )
