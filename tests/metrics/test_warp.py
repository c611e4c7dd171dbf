"""The warping error of videos whose motion is known."""

import pytest
import torch
from torch.nn import functional as F

from styletools import errors, metrics
from styletools.metrics._look import Look
from styletools.nn import flow as flows

SIZE = (80, 112)


def pan(count=4, step=(3, 1)):
    """Frames of a camera that moves over a picture by whole pixels."""
    generator = torch.Generator().manual_seed(0)
    cells = [torch.rand(1, 3, n, n, generator=generator) for n in (5, 12, 30)]
    whole = sum(F.interpolate(each, (120, 160), mode="bicubic") for each in cells).div(3).clamp(0, 1)
    return [whole[..., 10 + step[1] * t :, 10 + step[0] * t :][..., : SIZE[0], : SIZE[1]] for t in range(count)]


def restyled(image):
    return (1 - image.flip(1)) ** 2


def noisy(image, seed, sigma=0.05):
    return image + sigma * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))


def looks(frames, flow=None):
    return [Look(frame, str(t), flow if t else None) for t, frame in enumerate(frames)]


def scores(outputs, contents):
    metric = metrics.create(metrics.parse("warp")[0])
    return [metric.pair(Look(output), content, None) for output, content in zip(outputs, contents, strict=True)]


def test_the_first_frame_has_none():
    first, *others = scores(pan(), looks(pan()))
    assert first == {} and all(set(each) == {"", "content"} for each in others)


def test_a_pan_restyled_frame_by_frame_alike_is_steady():
    frames = pan()
    for each in scores([restyled(frame) for frame in frames], looks(frames))[1:]:
        assert each["content"] < 1e-5 and each[""] < 1e-5
    unmoved = (restyled(frames[0]) - restyled(frames[1])).square().mean()
    assert unmoved > 5e-3  # what it would be without motion taken into account


def test_noise_of_each_frame_is_twice_its_variance():
    still = pan(step=(0, 0))
    outputs = [noisy(frame, seed) for seed, frame in enumerate(still)]
    for each in scores(outputs, looks(still))[1:]:
        assert each[""] == pytest.approx(2 * 0.05**2, rel=0.05) and each["content"] < 1e-6
    moving = pan()
    outputs = [noisy(restyled(frame), seed) for seed, frame in enumerate(moving)]
    flow = torch.tensor([-3.0, -1]).view(1, 2, 1, 1).expand(1, 2, *SIZE)
    for each in scores(outputs, looks(moving, flow))[1:]:
        assert each[""] == pytest.approx(2 * 0.05**2, rel=0.05) and each["content"] < 1e-9


def test_given_flow_counts_before_estimated():
    frames = pan()
    flow = torch.tensor([-3.0, -1]).view(1, 2, 1, 1).expand(1, 2, *SIZE)
    outputs = [restyled(frame) for frame in frames]
    given, found = (scores(outputs, looks(frames, each))[1:] for each in (flow, None))
    for exact, estimated in zip(given, found):
        assert exact[""] < 1e-9 < estimated[""]
    # A wrong one is believed, too: nothing is estimated then.
    wrong = scores(outputs, looks(frames, torch.zeros(1, 2, *SIZE)))[1]
    assert wrong[""] > 10 * found[0][""]


def test_unknown_and_hidden_pixels_are_not_judged():
    frames = pan(2, (0, 0))
    flow = torch.zeros(1, 2, *SIZE)
    flow[..., :20, :] = torch.nan
    outputs = [frame.clone() for frame in frames]
    outputs[1][..., :20, :] = 0
    assert scores(outputs, looks(frames, flow))[1][""] < 1e-9
    # Something that comes before the content hides what was there, in the output as well.
    for given in (torch.zeros(1, 2, *SIZE), None):
        covered = [frame.clone() for frame in frames]
        covered[1][..., 30:60, 30:60] = 1 - covered[1][..., 30:60, 30:60].round()
        both = scores(covered, looks(covered, given))[1]
        everywhere = (covered[0] - covered[1]).square().mean()
        assert both[""] < 0.3 * everywhere


def test_nothing_to_judge_and_new_sequences():
    frames = pan()
    unknown = torch.full((1, 2, *SIZE), torch.nan)
    assert scores(frames, looks(frames, unknown)) == [{}] * 4
    small = [frame[..., ::2, ::2] for frame in frames]
    found = scores(frames[:2] + small[:2], looks(frames[:2] + small[:2]))
    assert [bool(each) for each in found] == [False, True, False, True]
    with pytest.raises(errors.DataError, match="1: flow of 56x40 for frames of 112x80 pixels"):
        scores(frames, looks(frames, torch.zeros(1, 2, 40, 56)))


def test_a_change_of_scene_is_no_flicker():
    one, other = pan(2), [frame.flip(1, 3) ** 3 for frame in pan(2)]
    found = scores(one + other, looks(one + other))
    assert [bool(each) for each in found] == [False, True, False, True]


def test_flow_is_estimated_once_for_all_rows(monkeypatch):
    frames = pan(3)
    contents = looks(frames)
    calls = []
    estimate = flows.estimate
    monkeypatch.setattr(flows, "estimate", lambda *words, **options: calls.append(1) or estimate(*words, **options))
    rows = [scores(outputs, contents) for outputs in (frames, [restyled(frame) for frame in frames])]
    assert len(calls) == 4  # two steps, there and back
    assert rows[0][1]["content"] == rows[0][1][""] == rows[1][1]["content"]
    # Another frame before is another motion.
    scores([frames[0], frames[2]], [contents[0], contents[2]])
    assert len(calls) == 6
