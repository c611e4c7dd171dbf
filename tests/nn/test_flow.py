"""Optical flow: on motion that is known, on published ground truth, and what is made of it."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from styletools import errors, streams
from styletools.nn import flow as flows


def texture(height=96, width=128, seed=0):
    """A picture with detail of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    total = 0
    for cells in (4, 10, 24):
        noise = torch.rand(1, 3, cells, cells, generator=generator)
        total = total + F.interpolate(noise, (height, width), mode="bicubic")
    return (total / 3).clamp(0, 1)


def panned(dx, dy, height=96, width=128, margin=24):
    """Two views of one picture: what is at x in the first is at x + (dx, dy) in the second."""
    whole = texture(height + 2 * margin, width + 2 * margin)
    moved = flows.warp(whole, uniform(-dx, -dy, *whole.shape[2:]))
    return tuple(view[..., margin:-margin, margin:-margin] for view in (whole, moved))


def uniform(dx, dy, height=96, width=128):
    return torch.tensor([dx, dy], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, height, width)


def error(flow, wanted):
    """Mean end-point error where the flow is known."""
    return float((flow - wanted).square().sum(1).sqrt().nanmean())


def test_warp_samples_to_the_right_and_down():
    image = torch.arange(20.0).view(1, 1, 4, 5)
    assert torch.equal(flows.warp(image, torch.zeros(1, 2, 4, 5)), image)
    moved = flows.warp(image, uniform(1, 2, 4, 5))
    torch.testing.assert_close(moved[0, 0, :2, :4], image[0, 0, 2:, 1:])
    assert moved[0, 0, 3, 4] == image[0, 0, 3, 4]  # outside: the nearest edge
    between = flows.warp(image, uniform(0.5, 0, 4, 5))[0, 0, 0]
    torch.testing.assert_close(between, torch.tensor([0.5, 1.5, 2.5, 3.5, 4]))


@pytest.mark.parametrize("scale, polish", [(0.5, False), (1, False), (0.5, True)])
@pytest.mark.parametrize("dx, dy", [(0, 0), (2.5, -1.25), (-11, 6), (0, 17)])
def test_a_pan_is_found(dx, dy, scale, polish):
    a, b = panned(dx, dy)
    seen = ~flows.outside(uniform(dx, dy))
    found = flows.estimate(a, b, scale=scale, polish=polish)
    wrong = (found - uniform(dx, dy)).square().sum(1, keepdim=True).sqrt()[seen]
    assert wrong.mean() < 0.12 and wrong.median() < 0.06
    assert error(flows.estimate(b, a)[..., 24:-24, 24:-24], -uniform(dx, dy)[..., 24:-24, 24:-24]) < 0.12


def test_light_does_not_move_things():
    a, b = panned(4, 2)
    assert error(flows.estimate(a, 0.6 * b + 0.2)[..., 8:-8, 8:-8], uniform(4, 2)[..., 8:-8, 8:-8]) < 0.3


def test_something_moves_before_something_else():
    behind, front = texture(seed=1), texture(seed=2)
    a, b = behind.clone(), behind.clone()
    a[..., 30:70, 30:70] = front[..., 30:70, 30:70]
    b[..., 33:73, 40:80] = front[..., 30:70, 30:70]
    forward, backward = flows.estimate(a, b), flows.estimate(b, a)
    assert error(forward[..., 36:64, 36:64], uniform(10, 3, 28, 28)) < 1
    assert error(forward[..., :20, :], torch.zeros(1, 2, 20, 128)) < 0.3
    hidden = flows.occluded(forward, backward)
    # The front covers ten columns to the right of where it was.
    assert hidden[..., 36:70, 71:79].float().mean() > 0.7
    assert hidden[..., 36:64, 36:64].float().mean() < 0.2 and hidden[..., :20, :].float().mean() < 0.05


def test_what_is_hidden():
    forward, backward = uniform(3, 0).clone(), uniform(-3, 0).clone()
    hidden = flows.occluded(forward, backward)
    assert hidden.dtype == torch.bool and hidden.shape == (1, 1, 96, 128)
    assert hidden[..., -3:].all() and not hidden[..., :-3].any()  # leaves the picture
    assert flows.occluded(uniform(0.4, 0), uniform(-0.4, 0)).sum() == 0  # by less than half a pixel
    forward[..., 10:20, 10:20] = torch.nan
    backward[..., 50:60, 50:60] = 3
    hidden = flows.occluded(forward, backward)
    assert hidden[..., 10:20, 10:20].all() and hidden[..., 50:60, 47:57].all()
    assert hidden[..., :-3].sum() == 200


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 2), (16, 16), (17, 70)])
def test_any_size(size):
    a = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for scale, polish in ((0.5, False), (1, False), (0.5, True)):
        found = flows.estimate(a, a, scale=scale, polish=polish)
        assert found.shape == (1, 2, *size) and found.abs().max() < 0.05
    assert flows.estimate(a, a.flip(3)).isfinite().all()


def test_pictures_of_one_colour_do_not_move():
    a = torch.full((1, 3, 40, 60), 0.5)
    assert flows.estimate(a, a + 0.1).abs().max() < 0.05


def test_kitti():
    array = np.zeros((2, 3, 3), np.uint16)
    array[0, 1] = 32768 + 64 * 5, 32768 - 32, 1
    found = flows.read_kitti(streams.Image(array))
    assert found.shape == (1, 2, 2, 3) and found[0, :, 0, 1].tolist() == [5, -0.5]
    assert found.isnan().sum() == 10
    for wrong in (array.astype(np.uint8), array[..., :1]):
        with pytest.raises(errors.DataError, match="KITTI"):
            flows.read_kitti(streams.Image(wrong))


@pytest.fixture(scope="module")
def truth(reference):
    """Pairs of pictures and the flow between them: {name: (a, b, flow)}."""
    folder = reference.parent / "video/flow_gt"
    if not folder.is_dir():
        pytest.skip("the reference data have no ground-truth flow")

    def picture(name):
        array = streams.open_image(folder / name).array
        return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255

    found = {}
    for number in (1, 3):
        with open(folder / f"chairs_{number}_flow.flo", "rb") as source:
            (record,) = streams.read(source)
        flow = torch.from_numpy(record.tensors["flow"]).permute(2, 0, 1)[None]
        found[f"chairs {number}"] = (*(picture(f"chairs_{number}_img{i}.png") for i in (1, 2)), flow)
    flow = flows.read_kitti(streams.open_image(folder / "kitti_flow_gt.png"))
    found["kitti"] = (picture("kitti_frame1.png"), picture("kitti_frame2.png"), flow)
    return found


# scikit-image's TV-L1, measured by bench/flow.py: 3.68, 4.36 and 41.6 pixels; ours: 2.30, 3.21 and 14.3.
@pytest.mark.parametrize("name, most", [("chairs 1", 3.2), ("chairs 3", 3.7), ("kitti", 20)])
def test_published_ground_truth(truth, name, most):
    a, b, flow = truth[name]
    assert error(flows.estimate(a, b), flow) < most
