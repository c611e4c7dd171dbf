"""Features and statistics of pictures, without the command around."""

import numpy as np
import pytest
import torch

from styletools import errors, streams
from styletools.engine.features import DEFAULT_LAYERS, Extractor, to_pixels

pytestmark = pytest.mark.usefixtures("slim")


def image(*shape, dtype=np.uint8):
    return streams.Image(np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype), "x", 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_of_every_kind_of_picture(channels, dtype):
    found = to_pixels(image(5, 7, channels, dtype=dtype))
    assert found.shape == (1, 3, 5, 7) and found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1
    assert to_pixels(image(5, 10, channels, dtype=dtype), 10).shape == (1, 3, 10, 20)
    with pytest.raises(errors.DataError):
        to_pixels(streams.Tensors({}))


def test_layers_come_shallow_to_deep():
    extractor = Extractor("slim", ["relu3_1", "relu1_1"], device="cpu")
    assert extractor.layers == ("relu1_1", "relu3_1")
    assert Extractor("slim", device="cpu").layers == DEFAULT_LAYERS


def test_features_too_large_for_16_bits():
    extractor = Extractor("slim", ["relu1_1"], device="cpu")
    for parameter in extractor.network.parameters():
        parameter.data.fill_(1e5)
    with pytest.raises(errors.DataError, match="leave --half out"):
        extractor.features(image(4, 4, 3), half=True)
    assert extractor.features(image(4, 4, 3)).index == 3
