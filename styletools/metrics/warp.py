"""warp: how much the colours of a restyled video change along the motion of its content: flicker.

Paper: arXiv:1808.00449 (Lai et al., 2018). Each output frame is brought to the one before along the optical flow of the
content, and the mean squared RGB difference is taken where a pixel is seen in both frames: where the flow back agrees
(which only estimated flow has) and the content keeps its colours. The part `content` is the same of the content's own
frames: what noise, light and interpolation alone amount to. Flow that is given (ground truth) counts before estimated
flow. A change of scene or of size begins anew. Weakness: blur lowers it and a picture of one colour has none; the flow
is only as good as its estimate; what is hidden or new is not judged, nor is a drift over many frames.
"""

import weakref

import torch

from styletools import errors
from styletools.metrics import Metric
from styletools.nn import flow as flows

NEEDS = ("content",)
SCOPE = "sequence"
BETTER = "lower"
RANGE = "0 to 1"

_SHORT_SIDE = 512  # at most, where flow is estimated: more takes long and finds little more
_OCCLUDED = 0.1**2  # mean squared RGB difference of content along the flow from which a pixel counts as hidden
_SAME_SCENE = 0.1  # of the pixels of known flow, at least, are seen again; after a cut it is a few in a hundred


class WarpingError(Metric):
    """Temporal warping error."""

    def __init__(self, network="", *, device="cpu"):
        super().__init__(network, device=device)
        self.before = None

    def restart(self):
        self.before = None

    @torch.no_grad()
    def pair(self, output, content, style=None):
        """Return nothing where there is no frame before, or it shows another scene."""
        before, self.before = self.before, (output.image, content)
        if before is None or before[0].shape != output.image.shape:
            return {}
        # Frames may be seen by several rows of a report; how the content moves is found out once.
        motion = content.keep(("motion", weakref.ref(before[1])), lambda: _motion(before[1], content))
        if motion is None:
            return {}
        flow, floor = motion
        return {"": _error(before[0], output.image, flow), "content": floor}


def _motion(before, now):
    """Return the flow between two content frames, NaN where it is not to be judged, and their error.

    None where they do not show the same.
    """
    flow = now.flow
    if flow is None:
        scale = min(1, _SHORT_SIDE / min(now.image.shape[-2:]))
        flow = flows.estimate(before.image, now.image, scale=scale)
        hidden = flows.occluded(flow, flows.estimate(now.image, before.image, scale=scale))
    else:
        if flow.shape[-2:] != now.image.shape[-2:]:
            sizes = " for frames of ".join(f"{x.shape[-1]}x{x.shape[-2]}" for x in (flow, now.image))
            raise errors.DataError(f"{now.name}: flow of {sizes} pixels")
        flow = flow.to(now.image)
        hidden = flows.outside(flow)
    known = ~flow.isnan().any(1, keepdim=True)
    difference = (flows.warp(now.image, flow.nan_to_num()) - before.image).square().mean(1, keepdim=True)
    seen = known & ~hidden & (difference <= _OCCLUDED)
    if not seen.any() or seen.sum() < _SAME_SCENE * known.sum():
        return None
    flow = flow.masked_fill(~seen, torch.nan)
    return flow, _error(before.image, now.image, flow)


def _error(before, now, flow) -> float:
    """Return the mean squared difference of a picture to the one before, along a flow that is NaN where none counts."""
    difference = (flows.warp(now, flow.nan_to_num()) - before).square().mean(1)
    return float(difference[~flow[:, 0].isnan()].mean())
