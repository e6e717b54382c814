"""Where images wait to be pulled: one registry storage, into which each image is built and pushed once.

Labs serve the same storage by registries of their own, wherever they need them.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from simulations.lab.images import Blob, Image, Layer, build_image, build_index, push
from simulations.lab.registry import Registry


class Warehouse:
    """A context manager. Its directory is temporary and has a short path, for the unix sockets of labs inside it."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._images: dict[str, Image] = {}
        self._labs = 0

    def __enter__(self) -> Warehouse:
        self.directory = Path(tempfile.mkdtemp(prefix="p2pd-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.storage = self.directory / "storage"
        self._registry = self._stack.enter_context(Registry(self.directory / "push", self.storage))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def image(self, repository: str, layers: Sequence[Layer], *, manifest_type: str = "oci") -> Image:
        """The image of a repository, tag "latest"; built and pushed at the first call for that repository."""
        if repository not in self._images:
            image = build_image(self._layout(repository), layers)
            push(image, self._registry.address, repository, manifest_type=manifest_type)
            self._images[repository] = image
        return self._images[repository]

    def push(self, repository: str, image: Image) -> Image:
        """An image that is there already, pushed to a repository that has nothing yet, as tag "latest"."""
        push(image, self._registry.address, repository, tag="latest")
        self._images[repository] = replace(image, tag="latest")
        return self._images[repository]

    def index(self, repository: str, platforms: dict[str, Sequence[Layer]]) -> tuple[Blob, Image]:
        """An index pushed to a repository that has nothing yet: its blob, and the image of amd64."""
        top, image = build_index(self._layout(repository), platforms)
        push(image, self._registry.address, repository)
        self._images[repository] = image
        return top, image

    def lab_directory(self) -> Path:
        """A new directory for a lab, removed with the warehouse."""
        self._labs += 1
        path = self.directory / f"lab{self._labs}"
        path.mkdir()
        return path

    def _layout(self, repository: str) -> Path:
        return self.directory / "layouts" / hashlib.sha256(repository.encode()).hexdigest()[:12]
