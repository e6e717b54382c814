"""`simulations.lab.images`, under the name that tests use."""

from simulations.lab.images import (
    MANIFEST,
    Blob,
    Image,
    Layer,
    build_image,
    build_index,
    build_layer,
    push,
)

__all__ = [
    "MANIFEST",
    "Blob",
    "Image",
    "Layer",
    "build_image",
    "build_index",
    "build_layer",
    "push",
]
