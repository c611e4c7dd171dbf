"""wct: any painting as style; the features' whole covariance is replaced by its own, from coarse levels to fine ones.

Paper: arXiv:1705.08086 (Li et al., 2017). Nothing about style is learnt: whitening and colouring are closed form, and
each level's decoder is trained on its own to rebuild pictures. Differences: the encoder may be any backbone, and the
losses of rebuilding are relative.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from styletools import backbones, errors, losses, stats
from styletools.methods import Method
from styletools.nn.decoder import Decoder

APPLIES_TO = "image+style"
TRAINS_ON = "images"


@dataclass(frozen=True)
class Config:
    backbone: Annotated[str, "network that encodes pictures"] = "slim"
    levels: Annotated[str, "layers that are transformed, one after another"] = "relu4_1,relu3_1,relu2_1,relu1_1"
    pixel_weight: Annotated[float, "weight of the difference of pixels"] = 1.0
    feature_weight: Annotated[float, "weight of the difference of features"] = 1.0
    lr: Annotated[float, "learning rate of Adam"] = 1e-3


class WCT(Method):
    """Whitening and colouring transforms at several levels, each with its decoder."""

    tiling = "global-stats"

    def __init__(self, config: Config):
        self.config = config
        self._levels = [level.strip() for level in config.levels.split(",") if level.strip()]
        backbones.check(config.backbone, self._levels)
        if not self._levels or len(set(self._levels)) < len(self._levels):
            raise errors.UsageError(f"levels={config.levels}: different layers expected, with commas between them")
        # How wide the decoders are, the weights of the encoder tell.
        self._encoder = backbones.load(config.backbone).to(memory_format=torch.channels_last)
        for level in self._levels:
            if level not in self._encoder.layers:
                raise errors.Unavailable(
                    f"{level} of {config.backbone} is not to be had: the weights in {self._encoder.source} "
                    f"stop at {self._encoder.layers[-1]}"
                )
        self.nets = nn.ModuleDict({level: Decoder(self._encoder.network, level) for level in self._levels})
        self._bound = False
        self.multiple = 2 ** (max(int(level[4]) for level in self._levels) - 1)

    def optimizers(self):
        return {"decoders": torch.optim.Adam(self.nets.parameters(), lr=self.config.lr)}

    def _features(self, images: Tensor, layers) -> dict[str, Tensor]:
        """Return what the encoder sees of images, in float32."""
        found = self._encoder.to(self.device)(images, layers)
        return {layer: x.float() for layer, x in found.items()}

    def _decoder(self, level: str) -> nn.Module:
        """Return the decoder of a level, certain that it belongs to the encoder."""
        if not self._bound:
            digest = self._encoder.digest()
            for decoder in self.nets.values():
                decoder.bind(digest, self.config.backbone)
            self._bound = True
        return self.nets[level]

    def _losses(self, images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            features = self._features(images, self._levels)
        total, named = 0.0, {}
        for level, kept in features.items():
            output = self._decoder(level)(kept)
            again = self._features(output, [level])[level]
            named[f"{level}.pixels"] = losses.relative(output, images)
            named[f"{level}.features"] = losses.relative(again, kept)
            total = total + self.config.pixel_weight * named[f"{level}.pixels"]
            total = total + self.config.feature_weight * named[f"{level}.features"]
        return {"loss": total} | named

    def train_step(self, batch, optimizers, step):
        named = self._losses(batch["images"])
        self.update(optimizers["decoders"], named["loss"])
        return named

    @torch.no_grad()
    def validate(self, batch):
        return self._losses(batch["images"])

    @torch.no_grad()
    def encode_style(self, images, weights):
        """Return {"<level>.mean": (C,), "<level>.moment": (C, C)} of style images, merged by `weights`."""
        records = []
        for image in images:
            record = {}
            for level, x in self._features(image, self._levels).items():
                record[f"{level}.mean"], record[f"{level}.moment"] = stats.mean(x)[0], stats.moment(x)[0]
            records.append(record)
        return stats.merge(records, weights)

    def apply(self, image, *, style=None, alpha=1.0):
        """Restyle (N, 3, H, W) RGB in [0, 1]; alpha is the share of the style in the features of every level."""
        for level in self._levels:
            content = self._features(image, [level])[level]
            average, second = (style[f"{level}.{kind}"].to(image.device) for kind in ("mean", "moment"))
            painted = stats.colour(stats.whiten(content), average, second).float()
            image = self._decoder(level)(torch.lerp(content, painted, alpha)).clamp(0, 1)
        return image
