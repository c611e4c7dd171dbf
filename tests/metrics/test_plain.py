"""Metrics without a network, against scikit-image's, and on pictures of which the score is known."""

import math

import pytest
import torch
from metric_samples import look, picture
from skimage import metrics as skimage_metrics

from styletools import metrics
from styletools.metrics._look import Look


def score(name, output, content=None, style=None):
    return metrics.create(metrics.parse(name)[0]).pair(output, content, style)


def array(picture):
    return picture.image[0].permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("size", [(40, 48), (11, 11), (64, 13)], ids=str)
@pytest.mark.parametrize("seed", [2, 1])
def test_ssim_is_scikit_images(size, seed):
    a, b = look(1, *size), look(seed, *size)
    expected = skimage_metrics.structural_similarity(
        array(a), array(b), gaussian_weights=True, use_sample_covariance=False, sigma=1.5, data_range=1, channel_axis=2
    )
    assert score("ssim", a, b)[""] == pytest.approx(expected, abs=1e-4)


def test_ssim_of_inverted_and_of_small_pictures():
    a = look(1)
    assert score("ssim", Look(1 - a.image), a)[""] < -0.1
    small, other = look(1, 5, 7), look(2, 5, 7)
    assert score("ssim", small, small)[""] == pytest.approx(1)
    assert -1 <= score("ssim", other, small)[""] < 0.9


def test_psnr_is_scikit_images():
    a, b = look(1), look(2)
    assert score("psnr", a, b)[""] == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(array(b), array(a), data_range=1), abs=1e-4
    )
    assert score("psnr", a, a)[""] == 100
    assert score("psnr", Look(torch.zeros(1, 3, 4, 4)), Look(torch.ones(1, 3, 4, 4)))[""] == 0


def flat(*color):
    return Look(torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, 6, 5).contiguous())


def test_color_of_known_pictures():
    assert score("color", flat(1.0, 1, 1), style=flat(0.0, 0, 0))[""] == 1
    assert score("color", flat(0.3, 0.6, 0.9), style=flat(0.3, 0.6, 0.9))[""] == pytest.approx(0, abs=1e-6)
    # Half of the pixels black, half white, against all black: 1 - sqrt(1/2) shared.
    half = Look(torch.cat([torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)], 3))
    assert score("color", half, style=flat(0.0, 0, 0))[""] == pytest.approx(math.sqrt(1 - math.sqrt(0.5)), abs=1e-6)
    # Halfway between two cells a colour is shared out to both: nearly the same colours stay nearly alike.
    near = score("color", flat(0.5, 0.5, 0.5), style=flat(0.51, 0.5, 0.5))[""]
    assert 0 < near < 0.1


def test_color_knows_no_place():
    image = picture(1)
    assert score("color", Look(image.flip(-1)), style=Look(image))[""] == pytest.approx(0, abs=1e-6)


def test_sharpness_of_known_pictures():
    board = torch.zeros(1, 3, 8, 8)
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = 1
    found = score("sharpness", Look(board), look(1))
    # Inside, each pixel differs from its four neighbours by all: ±4 · 255; at the edge one is its own repeat.
    values = [4 * 255] * 36 + [3 * 255] * 24 + [2 * 255] * 4
    assert found[""] == pytest.approx(sum(v * v for v in values) / 64, rel=1e-5)
    image = picture(1)
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    assert score("sharpness", Look(blurred), Look(image))["ratio"] < 0.5
    assert score("sharpness", flat(0.2, 0.4, 0.6), look(1))[""] == pytest.approx(0, abs=1e-6)
