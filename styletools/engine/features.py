"""Features and statistics of pictures, as records: what st-extract and st-gram write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from styletools import __version__, backbones, errors, log, stats, streams
from styletools.engine import device as devices
from styletools.engine import infer

DEFAULT_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def to_pixels(image: streams.Image, size: int | None = None) -> Tensor:
    """Return a picture as (1, 3, H, W) RGB in [0, 1], transparent parts over white, the short side scaled to `size`.

    Raises DataError for what is no picture.
    """
    if not isinstance(image, streams.Image):
        raise errors.DataError("holds tensors, not a picture")
    return infer.resize(infer.to_tensor(streams.Image(streams.flat_rgb(image)))[0], size)


class Extractor:
    """Reads layers of a perceptual network.

    layers: their names; none: DEFAULT_LAYERS, or all of a network that has none of these, as far as the weights go.
    size: scale the short side of pictures to this. lift: map the features into the space of the network that a
    distilled one stands in for. Raises Unavailable for weights, layers or a device that are not to be had.
    """

    def __init__(
        self, backbone: str, layers: Sequence[str] = (), *, size: int | None = None, lift: bool = False, device="auto"
    ):
        self.device = devices.choose(device)
        self.network = backbones.load(backbone, device=self.device)
        every = backbones.layers(backbone)
        usual = [layer for layer in DEFAULT_LAYERS if layer in every] or every
        self.layers = tuple(layers) or tuple(layer for layer in usual if layer in self.network.layers)
        if len(self.layers) < len(usual) and not layers:
            log.info(f"{backbone}: the weights stop at {self.network.layers[-1]}; layers {','.join(self.layers)}")
        lacking = [layer for layer in self.layers or usual if layer not in self.network.layers]
        if lacking:
            last = self.network.layers[-1]
            raise errors.Unavailable(f"{lacking[0]} of {backbone} is not to be had: the weights stop at {last}")
        self.layers = tuple(sorted(self.layers, key=self.network.layers.index))
        self.size = size
        lifted = [layer for layer in self.layers if lift and layer in self.network.heads]
        if lift and lifted and len(lifted) < len(self.layers):
            lacking = ", ".join(layer for layer in self.layers if layer not in lifted)
            raise errors.UsageError(f"{backbone} has no map for {lacking}: only for {', '.join(self.network.heads)}")
        self.lift = bool(lifted)
        self.meta = {
            "backbone": backbone,
            "backbone_sha256": self.network.digest(),
            "layers": ",".join(self.layers),
            "producer": f"styletools {__version__}",
        } | ({"lifted": "true"} if self.lift else {})

    def _read(self, image: streams.Image) -> tuple[dict[str, Tensor], dict[str, str]]:
        pixels = to_pixels(image, self.size).to(self.device)
        with torch.inference_mode():
            found = self.network(pixels, self.layers)
            found = self.network.lift(found) if self.lift else found
        return found, self.meta | {"image_size": f"{pixels.shape[-1]}x{pixels.shape[-2]}"}

    def features(self, image: streams.Image, *, half: bool = False) -> streams.Tensors:
        """Return the features of a picture: {layer: (C, h, w)} in float32, or in float16 with `half`.

        Raises DataError for what is no picture, and for features that 16 bits cannot hold.
        """
        found, meta = self._read(image)
        tensors = {layer: found[layer][0].float().cpu().numpy() for layer in self.layers}
        if half:
            with np.errstate(over="ignore"):
                tensors = {layer: array.astype(np.float16) for layer, array in tensors.items()}
            if not all(np.isfinite(array).all() for array in tensors.values()):
                raise errors.DataError("has features over 65504, which 16 bits cannot hold; leave --half out")
        return streams.Tensors(tensors, image.name, image.index, meta | {"kind": "features"})

    def statistics(self, image: streams.Image) -> streams.Tensors:
        """Return the statistics of a picture: {layer.mean: (C,), layer.moment: (C, C)} in float32."""
        found, meta = self._read(image)
        tensors = {}
        for layer in self.layers:
            tensors[f"{layer}.mean"] = stats.mean(found[layer])[0].cpu().numpy()
            tensors[f"{layer}.moment"] = stats.moment(found[layer])[0].cpu().numpy()
        return streams.Tensors(tensors, image.name, image.index, meta | {"kind": "stats", "count": "1"})
