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


def test_a_normal_distribution_cut_off_at_zero():
    average, std = torch.tensor([-4.0, -0.5, 0.0, 1.0, 6.0]), torch.tensor([1.0, 0.3, 2.0, 1.5, 1.0])
    drawn = torch.randn(400_000, 5, generator=torch.Generator().manual_seed(0)) * std + average
    found = stats.rectified_normal(average, std)
    torch.testing.assert_close(found[0], drawn.relu().mean(0), atol=6e-3, rtol=0)
    torch.testing.assert_close(found[1], drawn.relu().std(0), atol=1e-2, rtol=0)


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


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 4, 4), (1, 2, 1, 1)])
def test_gradient_of_mean_and_std(shape):
    x = features(shape, 3, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: stats.mean_std(x), x)
    constant = torch.full(shape, 2.0, requires_grad=True)
    stats.mean_std(constant)[1].sum().backward()
    assert torch.isfinite(constant.grad).all()


def test_gradient_of_std_in_sixteen_bits_is_in_sixteen_bits():
    x = features((1, 2, 8, 8), 1, torch.bfloat16).requires_grad_()
    average, deviation = stats.mean_std(x)
    assert average.dtype == deviation.dtype == torch.float32
    (average + deviation).sum().backward()
    assert x.grad.dtype == torch.bfloat16 and torch.isfinite(x.grad).all()


def test_statistics_are_not_rounded_by_autocast():
    x = features((1, 5, 9, 9), 0)
    with torch.autocast("cpu", torch.bfloat16):
        found = stats.moment(x), stats.covariance(x), stats.gram_matrix(x)
    torch.testing.assert_close(found, (stats.moment(x), stats.covariance(x), stats.gram_matrix(x)))


def test_statistics_of_an_affine_map():
    x = features((2, 4, 5, 6), 0, torch.float64)
    weight, bias = features((7, 4), 1, torch.float64), features((7,), 2, torch.float64)
    mapped = torch.einsum("dc,nchw->ndhw", weight, x) + bias[:, None, None]
    average, second = stats.affine_statistics(stats.mean(x), stats.moment(x), weight, bias)
    torch.testing.assert_close(average, stats.mean(mapped))
    torch.testing.assert_close(second, stats.moment(mapped))


def test_symmetric_power():
    x = features((3, 5, 8, 8), 0)
    matrix = stats.covariance(x)
    root = stats.symmetric_power(matrix, 0.5)
    torch.testing.assert_close(root @ root, matrix.double())
    inverse = stats.symmetric_power(matrix, -1.0)
    torch.testing.assert_close(inverse @ matrix.double(), torch.eye(5, dtype=torch.float64).expand(3, 5, 5))


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(1, 4, 3, 3),
        torch.full((2, 4, 3, 3), 1e15),
        torch.full((1, 4, 1, 1), 5.0),
        torch.rand(1, 64, 2, 3) * 1e-20,
        torch.rand(1, 64, 2, 3) * 1e15,
        torch.rand(1, 1, 8, 8).expand(1, 6, 8, 8),
    ],
    ids=["zero", "large", "pixel", "tiny", "fewer-pixels-than-channels", "rank-one"],
)
def test_whitening_is_always_finite_and_bounded(x):
    white = stats.whiten(x)
    assert white.shape == x.shape and torch.isfinite(white).all()
    spread = torch.linalg.eigvalsh(stats.covariance(white))
    assert spread.max() < 1.01, "no direction gets more than a variance of 1"
    painted = stats.colour(white, stats.mean(x)[0], stats.moment(x)[0])
    assert torch.isfinite(painted).all()


def test_whitened_and_coloured_features_have_the_statistics_of_the_style():
    content, style = features((2, 6, 9, 9), 0), features((1, 6, 5, 8), 1) * 3
    white = stats.whiten(content)
    torch.testing.assert_close(stats.covariance(white), torch.eye(6, dtype=torch.float64).expand(2, 6, 6))
    painted = stats.colour(white, stats.mean(style)[0], stats.moment(style)[0])
    torch.testing.assert_close(stats.mean(painted).float(), stats.mean(style).expand(2, 6), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        stats.covariance(painted).float(), stats.covariance(style).expand(2, 6, 6), rtol=1e-4, atol=1e-4
    )


def test_a_decomposition_that_does_not_converge(monkeypatch):
    def fails(matrix):
        raise torch.linalg.LinAlgError("linalg.eigh: the algorithm failed to converge")

    x = features((1, 4, 6, 6), 0)
    monkeypatch.setattr(torch.linalg, "eigh", fails)
    white = stats.whiten(x)
    torch.testing.assert_close(white.std((2, 3), correction=0), torch.ones(1, 4, dtype=torch.float64))


def test_a_matrix_that_is_not_finite():
    matrix = torch.eye(3)
    matrix[0, 1] = float("nan")
    assert torch.isfinite(stats.symmetric_power(matrix, -0.5)).all()
