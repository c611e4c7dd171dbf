"""adain: any painting as style; the features of the photograph get its means and deviations, and a decoder paints them.

Paper: arXiv:1703.06868 (Huang and Belongie, 2017). Differences: the encoder may be any backbone; the losses are
relative (over the mean square of their targets), so that a weight means the same for all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from styletools import backbones, errors, losses, stats
from styletools.backbones import vgg_normalised
from styletools.methods import Graphs, Method
from styletools.nn import decoder as decoders
from styletools.nn.decoder import Decoder

APPLIES_TO = "image+style"
TRAINS_ON = "content+styles"

LAYOUTS = ("pytorch-AdaIN",)

LAYER = "relu4_1"
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


@dataclass(frozen=True)
class Config:
    backbone: Annotated[str, "network that encodes pictures, and judges them in training"] = "slim"
    content_weight: Annotated[float, "weight of the content loss"] = 1.0
    style_weight: Annotated[float, "weight of the style loss"] = 10.0
    lr: Annotated[float, "learning rate of Adam"] = 1e-3


class AdaIN(Method):
    """Adaptive instance normalisation between a frozen encoder and a trained decoder."""

    keep = ("decoder",)
    needs_backbone = True
    multiple = 8
    tiling = True

    def __init__(self, config: Config):
        self.config = config
        backbones.check(config.backbone, STYLE_LAYERS)
        # How wide the decoder is, the weights of the encoder tell.
        self._encoder = backbones.load(config.backbone).to(memory_format=torch.channels_last)
        self.nets = nn.ModuleDict({"decoder": Decoder(self._encoder.network, LAYER)})
        self._bound = False

    def optimizers(self):
        return {"decoder": torch.optim.Adam(self.nets["decoder"].parameters(), lr=self.config.lr)}

    def to(self, device):
        self._encoder.to(device)
        return super().to(device)

    def _features(self, images: Tensor, layers=STYLE_LAYERS) -> dict[str, Tensor]:
        """Return what the encoder sees of images, in float32."""
        found = self._encoder(images, layers)
        return {layer: x.float() for layer, x in found.items()}

    def _decoder(self) -> nn.Module:
        """Return the decoder, certain that it belongs to the encoder."""
        if not self._bound:
            self.nets["decoder"].bind(self._encoder.digest(), self.config.backbone)
            self._bound = True
        return self.nets["decoder"]

    def _losses(self, batch) -> dict[str, Tensor]:
        with torch.no_grad():
            content = self._features(batch["content"], [LAYER])[LAYER]
            wanted = losses.mean_std_by_layer(self._features(batch["style"]))
            target = stats.adapt(content, *wanted[LAYER])
        output = self._features(self._decoder()(target))
        found = losses.mean_std_by_layer(output)
        by_layer = [losses.relative(a, b) for layer in STYLE_LAYERS for a, b in zip(found[layer], wanted[layer])]
        named = {"content": losses.relative(output[LAYER], target), "style": sum(by_layer) / len(STYLE_LAYERS)}
        total = self.config.content_weight * named["content"] + self.config.style_weight * named["style"]
        return {"loss": total} | named

    def train_step(self, batch, optimizers, step):
        named = self._losses(batch)
        self.update(optimizers["decoder"], named["loss"])
        return named

    @torch.no_grad()
    def validate(self, batch):
        return self._losses(batch)

    @torch.no_grad()
    def encode_style(self, images, weights):
        """Return {"mean": (C,), "std": (C,)} of relu4_1; several styles give the weighted mean of theirs."""
        records = []
        for image in images:
            average, deviation = stats.mean_std(self._features(image, [LAYER])[LAYER])
            records.append({"mean": average[0], "std": deviation[0]})
        return stats.merge(records, weights)

    def apply(self, image, *, style=None, alpha=1.0):
        """Restyle (N, 3, H, W) RGB in [0, 1]; alpha is the share of the style in the features."""
        content = self._features(image, [LAYER])[LAYER]
        average, deviation = (style[key].to(image.device).float().view(1, -1) for key in ("mean", "std"))
        target = torch.lerp(content, stats.adapt(content, average, deviation), alpha)
        return self._decoder()(target).clamp(0, 1)

    def graphs(self):
        decoder = self._decoder()

        def encode(image):
            average, deviation = stats.mean_std(self._features(image / 255, [LAYER])[LAYER])
            return {"mean": average[0], "std": deviation[0]}

        def paint(image, mean, std):
            content = self._features(image / 255, [LAYER])[LAYER]
            return (decoder(stats.adapt(content, mean.view(1, -1), std.view(1, -1))) * 255).clamp(0, 255)

        # Halfway to the adapted features is where statistics halfway to the style's lead.
        return Graphs(paint, encode, alpha="style")

    @staticmethod
    def detect(state_dict):
        return LAYOUTS[0] if _published(state_dict) else ""

    @staticmethod
    def convert(state_dict):
        """Convert the two files of pytorch-AdaIN: the encoder is a backbone here, the decoder ours in other words."""
        encoder, decoder = _published(state_dict)
        own = {key.removeprefix(encoder): tensor for key, tensor in state_dict.items() if key.startswith(encoder)}
        network = vgg_normalised.from_state(own, encoder.removesuffix("/"))
        tensors = {"decoder.encoder": torch.tensor(list(bytes.fromhex(network.digest())), dtype=torch.uint8)}
        found = decoders.from_published(state_dict, decoder, 4)
        return Config(backbone="vgg_normalised"), tensors | {f"decoder.{key}": value for key, value in found.items()}

    def publish(self, layout):
        """Return the decoder as pytorch-AdaIN has it; the encoder that it belongs to is vgg_normalised.pth."""
        if self.config.backbone != "vgg_normalised":
            raise errors.DoesNotFit(
                f"its decoder is for the backbone {self.config.backbone}, that of {layout} for vgg_normalised"
            )
        return decoders.to_published(self.nets["decoder"].state_dict(), 4)


def _published(state_dict: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Return what the keys of pytorch-AdaIN's encoder begin with, and those of its decoder; None: it is not here.

    A decoder whose file is called after its layer, or has others beside it, is one of WCT's.
    """
    found, encoders = decoders.find_published(state_dict), vgg_normalised.find_published(state_dict)
    if len(encoders) != 1 or set(found) != {4} or len(found[4]) != 1 or LAYER in found[4][0]:
        return None
    return encoders[0], found[4][0]
