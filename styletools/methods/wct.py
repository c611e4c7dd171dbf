"""wct: any painting as style; the features' whole covariance is replaced by its own, from coarse levels to fine ones.

Paper: arXiv:1705.08086 (Li et al., 2017). Nothing about style is learnt: whitening and colouring are closed form, and
each level's decoder is trained on its own to rebuild pictures. Differences: the encoder may be any backbone, and the
losses of rebuilding are relative.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from styletools import backbones, errors, losses, stats
from styletools.backbones import vgg_normalised
from styletools.methods import Method
from styletools.nn import decoder as decoders
from styletools.nn.decoder import Decoder
from styletools.nn.vgg import VGG19, MirroredVGG

APPLIES_TO = "image+style"
TRAINS_ON = "images"
LAYOUTS = ("Pytorch_WCT", "Collaborative-Distillation")

CONVOLUTION = re.compile(r"conv(\d)(\d?)\.(weight|bias)")  # what the second calls them; conv0 is the colour's


@dataclass(frozen=True)
class Config:
    backbone: Annotated[str, "network that encodes pictures"] = "slim"
    levels: Annotated[str, "layers that are transformed, one after another"] = "relu4_1,relu3_1,relu2_1,relu1_1"
    encoders: Annotated[str, "channels by block of encoders that the model holds, a level each: 16,32;24"] = ""
    pixel_weight: Annotated[float, "weight of the difference of pixels"] = 1.0
    feature_weight: Annotated[float, "weight of the difference of features"] = 1.0
    lr: Annotated[float, "learning rate of Adam"] = 1e-3


class WCT(Method):
    """Whitening and colouring transforms at several levels, each with its decoder."""

    tiling = True

    def __init__(self, config: Config):
        self.config = config
        self._levels = [level.strip() for level in config.levels.split(",") if level.strip()]
        widths = _widths(config.encoders)
        backbones.check(backbones.DEFAULT if widths else config.backbone, () if widths else self._levels)
        if not self._levels or len(set(self._levels)) < len(self._levels):
            raise errors.UsageError(f"levels={config.levels}: different layers expected, with commas between them")
        self._bound, self.needs_backbone = bool(widths), not widths
        if widths:
            self._load_own(widths)
        else:
            self._load_backbone()
        self.multiple = 2 ** (max(int(level[4]) for level in self._levels) - 1)

    def _load_own(self, widths: list[list[int]]) -> None:
        """Build an encoder and a decoder for each level; both are in the model file."""
        if [len(each) for each in widths] != [int(level[4]) for level in self._levels]:
            raise errors.UsageError(f"encoders={self.config.encoders}: a number for each block of each level expected")
        self.nets = nn.ModuleDict()
        for level, each in zip(self._levels, widths):
            self.nets[f"{level}_encoder"] = MirroredVGG(VGG19, each, last=level).requires_grad_(False)
            self.nets[level] = Decoder(self.nets[f"{level}_encoder"], level)

    def _load_backbone(self) -> None:
        """Build a decoder for each level; how wide they are, the weights of the encoder tell."""
        config = self.config
        self._encoder = backbones.load(config.backbone).to(memory_format=torch.channels_last)
        for level in self._levels:
            if level not in self._encoder.layers:
                raise errors.Unavailable(
                    f"{level} of {config.backbone} is not to be had: the weights in {self._encoder.source} "
                    f"stop at {self._encoder.layers[-1]}"
                )
        self.nets = nn.ModuleDict({level: Decoder(self._encoder.network, level) for level in self._levels})

    def optimizers(self):
        parameters = [p for level in self._levels for p in self.nets[level].parameters()]
        return {"decoders": torch.optim.Adam(parameters, lr=self.config.lr)}

    def to(self, device):
        if not self.config.encoders:
            self._encoder.to(device)
        return super().to(device)

    def _features(self, images: Tensor, layers) -> dict[str, Tensor]:
        """Return what the encoder sees of images, in float32."""
        if self.config.encoders:
            return {layer: self.nets[f"{layer}_encoder"](images, [layer])[layer].float() for layer in layers}
        found = self._encoder(images, layers)
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

    @staticmethod
    def detect(state_dict):
        if _named_by_block(state_dict):
            return LAYOUTS[1]
        return LAYOUTS[0] if _numbered(state_dict) else ""

    @staticmethod
    def convert(state_dict):
        """Convert decoders of the normalised VGG-19, which is a backbone here, or pairs of encoder and decoder."""
        pairs, tensors = _named_by_block(state_dict), {}
        for level, (encoder, decoder) in pairs.items():
            for net, file in ((f"relu{level}_1_encoder", encoder), (f"relu{level}_1", decoder)):
                for key, tensor in state_dict.items():
                    if key.startswith(file) and (found := CONVOLUTION.fullmatch(key.removeprefix(file))):
                        name = f"convs.conv{found[1]}_{found[2]}" if found[1] != "0" else "colour"
                        tensors[f"{net}.{name}.{found[3]}"] = tensor.float()
            last = f"relu{level}_1.convs.conv1_1.bias"
            tensors |= {last: tensors[last] - 0.5, f"relu{level}_1.encoder": torch.zeros(32, dtype=torch.uint8)}
        if pairs:
            widths = [[len(state_dict[f"{encoder}conv{block}1.weight"]) for block in range(1, level + 1)]
                      for level, (encoder, _) in pairs.items()]  # fmt: skip
            return Config(backbone="", levels=",".join(f"relu{level}_1" for level in pairs),
                          encoders=";".join(",".join(map(str, each)) for each in widths)), tensors  # fmt: skip
        found = _numbered(state_dict)
        digest = torch.zeros(32, dtype=torch.uint8)
        for file in vgg_normalised.find_published(state_dict):
            own = {key.removeprefix(file): tensor for key, tensor in state_dict.items() if key.startswith(file)}
            network = vgg_normalised.from_state(own, file.removesuffix("/"))
            digest = torch.tensor(list(bytes.fromhex(network.digest())), dtype=torch.uint8)
        for level, file in found.items():
            own = decoders.from_published(state_dict, file, level) | {"encoder": digest}
            tensors |= {f"relu{level}_1.{key}": tensor for key, tensor in own.items()}
        return Config(backbone="vgg_normalised", levels=",".join(f"relu{level}_1" for level in found)), tensors


def _widths(text: str) -> list[list[int]]:
    """Return the channels of encoders that a model holds, [[of each block] for each level]."""
    words = [level.split(",") for level in text.split(";") if level]
    if not all(word.isdecimal() and int(word) for level in words for word in level):
        raise errors.UsageError(f"encoders={text}: numbers expected, as 16,32;24")
    return [[int(word) for word in level] for level in words]


def _numbered(state_dict: Mapping[str, Tensor]) -> dict[int, str]:
    """Return {level: what the keys of its decoder begin with}, deepest first, of decoders for the normalised VGG-19.

    A single decoder of relu4_1 is AdaIN's just as well: it counts where its file is called after its layer.
    """
    found = decoders.find_published(state_dict)
    if any(len(files) > 1 for files in found.values()) or len(vgg_normalised.find_published(state_dict)) > 1:
        return {}
    if set(found) == {4} and "relu4_1" not in found[4][0]:
        return {}
    return {level: found[level][0] for level in sorted(found, reverse=True)}


def _named_by_block(state_dict: Mapping[str, Tensor]) -> dict[int, tuple[str, str]]:
    """Return {level: what the keys of its encoder and its decoder begin with}, deepest first, of whole pairs alone."""
    encoders: dict[int, str] = {}
    pairs: dict[int, tuple[str, str]] = {}
    blocks: dict[str, set[int]] = {}
    for key in state_dict:
        file = key[: key.rfind("/") + 1]
        if found := CONVOLUTION.fullmatch(key.removeprefix(file)):
            blocks.setdefault(file, set()).add(int(found[1]))
    files = {file: (max(own), tuple(state_dict[f"{file}conv11.weight"].shape[:2]), 0 in own)
             for file, own in blocks.items() if f"{file}conv11.weight" in state_dict}  # fmt: skip
    for file, (level, shape, coloured) in files.items():
        if coloured and shape[1:] == (3,):
            if level in encoders:
                return {}
            encoders[level] = file
    for file, (level, shape, coloured) in files.items():
        if not coloured and shape[:1] == (3,):
            if level in pairs or level not in encoders:
                return {}
            pairs[level] = (encoders[level], file)
    return {level: pairs[level] for level in sorted(pairs, reverse=True)} if set(pairs) == set(encoders) else {}
