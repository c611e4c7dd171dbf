"""What makes a restyled film steady: each frame takes over what it can of the one before, moved as its content moved.

Left to itself, a network paints its strokes anew in every frame: already a motion by one pixel, where it works at a
quarter of the resolution, gives others. Here

- the statistics that normalisation layers divide by follow the film slowly, so that what comes into the picture
  does not change the colours of all the rest;
- the frame before is brought to the present one along the optical flow of the photographs. Faintly laid into the
  photograph, its strokes make the network paint some of them again;
- then it is blended into what the network has painted, where the flow explains the photograph (Ruder et al.,
  arXiv:1604.08610, judge by the flow back, which takes as long again and was no better);
- the mean of two textures that differ is paler than either: detail is brought back to the contrast that it has in the
  present frame (Heitz and Neyret, High-Performance By-Example Noise using a Histogram-Preserving Blending Operator,
  2018, do so for textures). Without that, a quarter of the sharpness would be lost.

Where the scene changes, everything begins anew.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from styletools import streams
from styletools.engine import infer
from styletools.nn import flow as flows
from styletools.nn import norm

DEFAULT_STRENGTH = 0.5

_MOST = 0.76  # share of the frame before at full strength
_SEARCHED = 64  # pixels of the short side, at least, of the pictures that motion is searched in
_UNLIKE = 0.08  # RMS difference of the photograph to the one before, moved, at which the share falls to 1 / e
# Of the photograph's variance, what the flow may leave unexplained in one scene: the clips measured have up to 0.03, a
# light that goes down by a fifth or heavy noise 0.4, pictures that show something else 0.7 and more.
_UNEXPLAINED = 0.5
_DARK = 0.014**2  # a variance that counts as none: noise of dark pictures is never explained
_SEED = 0.025  # of the strokes of the frame before, at full strength, laid into the photograph
_STROKE = 32  # pixels: what is larger is no stroke but colour
_CELL = 8  # pixels a side, over which the contrast of detail is measured
_SHARPEST = 1.0  # most that detail is raised by
_RAISED = (1.3, 1.0)  # how much of the detail that is missing is given back, the finest and that twice as large
_FAINT = 0.003**2  # detail that is too faint to be worth raising


class Steady:
    """Restyles the frames of a film in their order, each steadied by those before.

    restyler: what restyles a frame; its style may change between frames. strength: 0 (frame by frame, exactly what
    the restyler makes) to 1. With `alpha` 0, where frames stay what they are, there is nothing to steady. estimate:
    what finds the flow from one picture to another in place of nn/flow.py, as raft.Raft.
    """

    def __init__(
        self,
        restyler: infer.Restyler,
        strength: float = DEFAULT_STRENGTH,
        estimate: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self.restyler, self.strength, self._estimate = restyler, strength, estimate
        self.reset()

    def reset(self) -> None:
        """Forget the frames before: the next one begins a scene."""
        self._photo: Tensor | None = None  # the last frame, at half its size
        self._outputs: list[Tensor] = []  # what came of it, inside of the mask and outside
        self._moments: list[tuple[Tensor, Tensor]] = []  # mean and variance of each normalisation, in their order

    def state(self) -> dict[str, Tensor]:
        """Return all that the next frame depends on, named; nothing at the beginning of a scene."""
        named = {} if self._photo is None else {"photo": self._photo}
        named |= {f"output.{i}": output for i, output in enumerate(self._outputs)}
        for i, (mean, variance) in enumerate(self._moments):
            named |= {f"mean.{i}": mean, f"variance.{i}": variance}
        return named

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on after the frame that `state` was asked for: the next comes out the same, bit for bit."""
        state = {name: tensor.to(self.restyler.method.device).contiguous() for name, tensor in state.items()}
        self._photo = state.get("photo")
        self._outputs = [state[f"output.{i}"] for i in range(sum(name.startswith("output.") for name in state))]
        count = sum(name.startswith("mean.") for name in state)
        self._moments = [(state[f"mean.{i}"], state[f"variance.{i}"]) for i in range(count)]

    def __call__(self, frame: streams.Image | Tensor) -> streams.Image | Tensor:
        """Restyle the next frame: a picture, or (1, 3, H, W) RGB in [0, 1], which comes back as the same.

        A tensor that comes back is also remembered: leave it as it is. Raises what the restyler raises, and then
        remembers what it did before.
        """
        if isinstance(frame, Tensor):
            return self._paint(frame)
        return self.restyler.carry(frame, self._paint)

    def _paint(self, original: Tensor) -> Tensor:
        if not self.strength or not self.restyler.alpha:
            return self.restyler.paint(original)
        photo, flow, trust = self._follow(original)
        share = _MOST * self.strength
        outputs, moments = [], []
        known = self._moments if flow is not None else []

        def remember(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
            """Let the statistics of one layer follow those of this frame slowly."""
            now = (mean, variance)
            if len(moments) < len(known):
                before = known[len(moments)]
                if before[0].shape == mean.shape:
                    now = tuple(torch.lerp(new, old, share) for new, old in zip(now, before))
            moments.append(now)
            return now

        def restyle(picture: Tensor, style: dict[str, Tensor] | None) -> Tensor:
            moved = None
            if flow is not None and len(outputs) < len(self._outputs):
                moved = _warp(self._outputs[len(outputs)], flow)
                picture = _seeded(picture, moved, self.strength * _SEED * trust)
            with norm.replaced(remember):
                result = self.restyler.restyle(picture, style)
            if moved is not None:
                result = _blend(result, moved, share * trust)
            outputs.append(result.contiguous())
            return outputs[-1]

        result = self.restyler.paint(original, restyle)
        self._photo, self._outputs, self._moments = photo, outputs, moments
        return result

    @torch.no_grad()
    def _follow(self, original: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the frame at half its size, the flow back to the frame before, and how well that explains each pixel,
        0 to 1, (1, 1, H, W); no flow where there is no frame before that shows the same.
        """
        size = original.shape[-2:]
        photo = F.interpolate(original, [-(-side // 2) for side in size], mode="bilinear", antialias=True)
        before = self._photo
        if before is None or before.shape != photo.shape or self._outputs[0].shape != original.shape:
            return photo, None, None
        if self._estimate:
            flow = self._estimate(photo, before)
        else:
            scale = min(max(0.5, _SEARCHED / min(photo.shape[-2:])), 1)
            flow = flows.estimate(photo, before, scale=scale, polish=True)
        left = (flows.warp(before, flow) - photo).square().mean(1, keepdim=True)
        seen = ~flows.outside(flow)
        variance = (photo.var((2, 3), correction=0) + before.var((2, 3), correction=0)).mean() / 2
        if not seen.any() or left[seen].mean() > _UNEXPLAINED * (variance + _DARK):
            return photo, None, None
        left = F.conv2d(F.pad(left, (1, 1, 1, 1), mode="replicate"), left.new_full((1, 1, 3, 3), 1 / 9))
        trust = torch.exp(-left / _UNLIKE**2) * seen
        return photo, flows.resize(flow, size), F.interpolate(trust, size, mode="bilinear")


@torch.no_grad()
def _warp(before: Tensor, flow: Tensor) -> Tensor:
    return flows.warp(before, flow, "bicubic")


@torch.no_grad()
def _seeded(photo: Tensor, moved: Tensor, amount: Tensor) -> Tensor:
    """Return a photograph with so much of the strokes of the frame before in it, but not of its colours."""
    size = [-(-side // _STROKE) for side in moved.shape[-2:]]
    colours = F.interpolate(F.interpolate(moved, size, mode="area"), moved.shape[-2:], mode="bilinear")
    return torch.addcmul(photo, amount, moved - colours).clamp_(0, 1)


@torch.no_grad()
def _blend(now: Tensor, moved: Tensor, amount: Tensor) -> Tensor:
    """Return a frame with so much of the one before in it, its detail as strong as it was."""
    blended = torch.lerp(now, moved, amount)
    weights = now.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    wanted, found = ((image * weights).sum(1, keepdim=True) for image in (now, blended))
    for raised in _RAISED:
        added = raised * _missing(wanted, found)
        if added.shape != blended.shape[-2:]:
            added = F.interpolate(added, blended.shape[-2:], mode="bilinear")
        blended += added
        size = [-(-side // 2) for side in wanted.shape[-2:]]
        wanted, found = (F.interpolate(luma, size, mode="area") for luma in (wanted, found))
    return blended.clamp_(0, 1)


def _missing(wanted: Tensor, found: Tensor) -> Tensor:
    """Return what the finest detail of a plane lacks to be as strong as that of another, both (1, 1, H, W)."""
    wanted, found = _detail(wanted), _detail(found)
    size = [-(-side // _CELL) for side in wanted.shape[-2:]]
    strong, pale = (F.interpolate(x.square(), size, mode="area") + _FAINT for x in (wanted, found))
    gain = ((strong / pale).sqrt() - 1).clamp(0, _SHARPEST)
    return F.interpolate(gain, wanted.shape[-2:], mode="bilinear") * found


def _detail(plane: Tensor) -> Tensor:
    """Return how far each pixel is from the mean around it, weighed 1 2 1 each way."""
    mean = F.pad(plane, (1, 1, 1, 1), mode="replicate")
    for dim in (-2, -1):  # several times faster than a convolution
        size = mean.shape[dim] - 2
        mean = (mean.narrow(dim, 0, size) + mean.narrow(dim, 2, size)).add_(mean.narrow(dim, 1, size), alpha=2)
    return plane - mean / 16
