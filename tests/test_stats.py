"""Statistics of features against plain formulas in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from styletools import stats

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
bounded = settings(max_examples=40, deadline=None)


def features(shape, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1).to(dtype)


def columns(x):
    """Return (N, C, H·W) in float64."""
    return x.double().numpy().reshape(x.shape[0], x.shape[1], -1)


def close(found, expected, tolerance=2e-5):
    assert found.dtype in (torch.float32, torch.float64)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=tolerance, atol=tolerance)


@bounded
@given(SHAPES, st.integers(0, 99))
def test_mean_and_moment(shape, seed):
    x = features(shape, seed)
    f = columns(x)
    close(stats.mean(x), f.mean(2))
    close(stats.moment(x), np.stack([sum(np.outer(p, p) for p in one.T) / one.shape[1] for one in f]))


@bounded
@given(SHAPES, st.integers(0, 99))
def test_gram_matrix(shape, seed):
    x = features(shape, seed)
    f = columns(x)
    _, c, h, w = shape
    close(stats.gram_matrix(x), np.stack([one @ one.T for one in f]) / (c * h * w))
    close(stats.gram_from_moment(stats.moment(x)), np.stack([one @ one.T for one in f]) / (c * h * w))


@bounded
@given(SHAPES, st.integers(0, 99))
def test_mean_std(shape, seed):
    x = features(shape, seed)
    f = columns(x)
    average, deviation = stats.mean_std(x)
    close(average, f.mean(2))
    close(deviation, np.sqrt(f.var(2) + stats.EPS))
    # From moments the variance is a difference of larger numbers: exact in float64, near in float32.
    close(stats.std_from_moment(stats.mean(x.double()), stats.moment(x.double())), np.sqrt(f.var(2) + stats.EPS))
    close(stats.std_from_moment(stats.mean(x), stats.moment(x)), np.sqrt(f.var(2) + stats.EPS), 5e-3)


@bounded
@given(SHAPES, st.integers(0, 99))
def test_covariance(shape, seed):
    x = features(shape, seed)
    expected = np.stack([np.cov(one, bias=True).reshape(shape[1], shape[1]) for one in columns(x)])
    close(stats.covariance(x), expected)
    close(stats.covariance_from_moment(stats.mean(x.double()), stats.moment(x.double())), expected)


@bounded
@given(SHAPES, st.integers(0, 99))
def test_one_image_needs_no_batch_axis(shape, seed):
    x = features(shape, seed)
    for function in (stats.mean, stats.moment, stats.gram_matrix, stats.covariance):
        torch.testing.assert_close(function(x[0]), function(x)[0])


@bounded
@given(st.lists(st.integers(0, 99), min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 6))
def test_merging_equals_the_statistics_of_all_pixels(seeds, height, width):
    images = [features((1, 4, height, width), seed, torch.float64) for seed in seeds]
    records = [{"r.mean": stats.mean(x)[0], "r.moment": stats.moment(x)[0]} for x in images]
    merged = stats.merge(records, [1.0] * len(records))
    together = torch.cat(images, 3)
    close(merged["r.mean"], stats.mean(together)[0].numpy(), 1e-12)
    close(merged["r.moment"], stats.moment(together)[0].numpy(), 1e-12)
    covariance = stats.covariance_from_moment(merged["r.mean"], merged["r.moment"])
    close(covariance, stats.covariance(together)[0].numpy(), 1e-10)


@bounded
@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=3), st.floats(0.01, 100))
def test_merging_is_linear_and_weights_are_relative(weights, factor):
    records = [{"a": features((5, 5, 1, 1), seed, torch.float64)} for seed in range(3)]
    merged = stats.merge(records, weights)["a"]
    scaled = stats.merge(records, [w * factor for w in weights])["a"]
    torch.testing.assert_close(merged, scaled)
    # Two merges in a row are one merge.
    two = stats.merge(records[:2], weights[:2])
    torch.testing.assert_close(merged, stats.merge([two, records[2]], [sum(weights[:2]), weights[2]])["a"])


@pytest.mark.parametrize(
    ("records", "weights"),
    [
        ([], []),
        ([{"a": torch.zeros(1)}], [1, 2]),
        ([{"a": torch.zeros(1)}], [0]),
        ([{"a": torch.zeros(1)}] * 2, [1, -1]),
        ([{"a": torch.zeros(1)}], [float("nan")]),
        ([{"a": torch.zeros(1)}, {"b": torch.zeros(1)}], [1, 1]),
    ],
)
def test_what_cannot_be_merged(records, weights):
    with pytest.raises(ValueError):
        stats.merge(records, weights)


def test_sixteen_bit_features_are_summed_in_float32():
    x = torch.full((1, 2, 64, 64), 3.0)
    for dtype in (torch.bfloat16, torch.float16):
        assert stats.mean(x.to(dtype)).dtype == torch.float32
        torch.testing.assert_close(stats.moment(x.to(dtype)), torch.full((1, 2, 2), 9.0))


def test_constant_channels_keep_gradients_finite():
    x = torch.ones(1, 3, 4, 4, requires_grad=True)
    average, deviation = stats.mean_std(x)
    (average.sum() + deviation.sum()).backward()
    assert torch.isfinite(x.grad).all()


# Colour

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))


def colours(size, seed, flat=False):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 3, *size, generator=generator)
    return image.mean((2, 3), keepdim=True).expand_as(image).clone() if flat else image


@pytest.mark.parametrize("name", sorted(stats.COLOR_TRANSFERS))
@bounded
@given(SIZES, SIZES, st.booleans(), st.booleans())
def test_colour_transfers_keep_the_shape_and_take_flat_pictures(name, size, other, flat, flat_too):
    # A brightness from one and the colours from the other need pictures of one size.
    reference = colours(size if name == "luminance" else other, 2, flat_too)
    image = colours(size, 1, flat)
    result = stats.COLOR_TRANSFERS[name](image, reference)
    assert result.shape == image.shape and result.dtype == image.dtype and torch.isfinite(result).all()


def test_luminance_is_the_pictures_and_chroma_the_references():
    image, reference = colours((9, 8), 1), colours((9, 8), 2)
    result = stats.keep_chroma(image, reference)
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    found, first, second = (torch.einsum("ij,njhw->nihw", yiq, x) for x in (result, image, reference))
    torch.testing.assert_close(found[:, 0], first[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 1:], second[:, 1:], rtol=0, atol=1e-5)


def test_covariance_is_matched_and_the_identity_left_alone():
    image, reference = colours((20, 18), 1) * 0.5, colours((15, 17), 2).square()
    result = stats.match_covariance(image, reference)
    torch.testing.assert_close(stats.mean(result), stats.mean(reference), rtol=0, atol=1e-4)
    torch.testing.assert_close(stats.covariance(result), stats.covariance(reference), rtol=0, atol=1e-4)
    torch.testing.assert_close(stats.match_covariance(image, image), image, rtol=0, atol=1e-4)


def test_histograms_are_matched():
    image, reference = colours((20, 18), 1), colours((18, 20), 2).square()
    result = stats.match_histogram(image, reference)
    torch.testing.assert_close(result.flatten(2).sort(2).values, reference.flatten(2).sort(2).values)
    assert torch.equal(result[0, 0].flatten().argsort(), image[0, 0].flatten().argsort()), "the order is the picture's"
    larger = stats.match_histogram(image, colours((40, 30), 2))
    torch.testing.assert_close(larger.mean(), torch.tensor(0.5), rtol=0, atol=0.05)


@pytest.mark.parametrize("name", sorted(stats.COLOR_TRANSFERS))
def test_a_picture_keeps_its_own_colours(name):
    image = colours((20, 18), 1)
    torch.testing.assert_close(stats.COLOR_TRANSFERS[name](image, image), image, rtol=0, atol=1e-4)


def test_covariance_is_matched_where_colours_do_not_vary_in_all_directions():
    """Grey pictures, and such of two colours, have singular covariances."""
    grey, full = colours((20, 18), 1).mean(1, keepdim=True).repeat(1, 3, 1, 1), colours((15, 17), 2)
    result = stats.match_covariance(full, grey)
    torch.testing.assert_close(stats.covariance(result), stats.covariance(grey), rtol=0, atol=2e-3)
    torch.testing.assert_close(result.mean(1), result[:, 0], rtol=0, atol=0.02)
    assert torch.isfinite(stats.match_covariance(grey, full)).all()


def test_histograms_of_flat_parts_stay_flat():
    """What is clipped to one value must not come out as a ramp from top to bottom."""
    reference = colours((8, 8), 3)
    result = stats.match_histogram(torch.zeros(1, 3, 8, 8), reference)
    torch.testing.assert_close(result, reference.mean((2, 3), keepdim=True).expand_as(result))
    half = colours((8, 8), 1)
    half[..., :4, :] = 0
    result = stats.match_histogram(half, reference)
    assert (result[..., :4, :] == result[..., :1, :1]).all()
    above, wanted = result[..., 4:, :].flatten(2).sort(2).values, reference.flatten(2).sort(2).values[..., 32:]
    torch.testing.assert_close(above, wanted)


def test_colour_transfers_leave_what_they_are_given():
    image, reference = colours((9, 8), 1), colours((9, 8), 2)
    before = image.clone(), reference.clone()
    for transfer in stats.COLOR_TRANSFERS.values():
        transfer(image, reference)
    assert torch.equal(image, before[0]) and torch.equal(reference, before[1])
