"""Pulls as the kubelet orders them: `PullImage` of the container runtime interface, with an image pull secret."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import grpc

PULL_TIMEOUT_S = 60.0


@cache
def _generated() -> tuple[ModuleType, ModuleType]:
    """Messages and stubs, made of images.proto."""
    return grpc.protos_and_services("tests/cri/images.proto")  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Secret:
    """What an image pull secret has for a registry. The kubelet never says for which (`server_address`)."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    server_address: str = ""


class PullFailed(Exception):
    """containerd's own words."""


class Cri:
    """A containerd with its CRI plugin, at a unix socket."""

    def __init__(self, socket: Path) -> None:
        self._address = f"unix://{socket}"

    def is_ready(self) -> bool:
        """Whether the plugin answers; for a moment after containerd's start it does not."""
        messages, services = _generated()
        with grpc.insecure_channel(self._address) as channel:
            try:
                services.RuntimeServiceStub(channel).Status(messages.StatusRequest(), timeout=PULL_TIMEOUT_S)
            except grpc.RpcError as error:
                return "not initialized" not in error.details()  # type: ignore[attr-defined]
        return True

    def pull(self, image: str, secret: Secret | None = None) -> str:
        """The pulled image's id. PullFailed."""
        messages, services = _generated()
        auth = None
        if secret is not None:
            fields = ("username", "password", "identity_token", "server_address")
            auth = messages.AuthConfig(**{name: getattr(secret, name) for name in fields})
        request = messages.PullImageRequest(image=messages.ImageSpec(image=image), auth=auth)
        with grpc.insecure_channel(self._address) as channel:
            try:
                return services.ImageServiceStub(channel).PullImage(request, timeout=PULL_TIMEOUT_S).image_ref
            except grpc.RpcError as error:
                raise PullFailed(error.details()) from None  # type: ignore[attr-defined]
