"""Pictures to be judged, and an Inception that has learnt nothing."""

import pytest
import torch
from torch.nn import functional as F

from styletools.metrics._look import Look


def picture(seed, height=40, width=48):
    """A colourful picture with detail, (1, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    coarse, fine = (torch.rand(1, 3, n, n, generator=generator) for n in (4, 16))
    both = sum(F.interpolate(each, (height, width), mode="bicubic") for each in (coarse, fine)) / 2
    return ((both.clamp(0, 1) * 255).round() / 255).contiguous()


def look(seed, height=40, width=48):
    return Look(picture(seed, height, width), str(seed))


def save_inception(path):
    """Write Inception with random weights that let something through, in the published layout."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    kind = module.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(kind, "load_state_dict", lambda *_, **__: None)
        network = kind("inception-v3-compat", ["2048", "logits_unbiased"])
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    torch.save(network.state_dict(), path)
