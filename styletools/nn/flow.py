"""Optical flow: how far each pixel moves from one picture to the next, estimated without learning, and its use.

A flow is (N, 2, H, W) in pixels, to the right and down: what is at x in the first picture is at x + flow(x) in the
second. NaN where it is not known.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from styletools import errors, streams

_COARSEST = 8  # the short side of the smallest pictures of the pyramid, at least; large motion is found there
_TRUNCATED = 2.0  # a difference of descriptors that counts no more when it grows: occlusion, light


def warp(image: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Return the picture (N, C, H, W) sampled at x + flow, bilinear or bicubic; outside it, its nearest edge."""
    height, width = flow.shape[-2:]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device)
    # grid_sample wants the corner pixels' centres at -1 and 1.
    x = (x + flow[:, 0]) * (2 / max(image.shape[-1] - 1, 1)) - 1
    y = (y + flow[:, 1]) * (2 / max(image.shape[-2] - 1, 1)) - 1
    return F.grid_sample(image, torch.stack((x, y), -1), mode=mode, padding_mode="border", align_corners=True)


def occluded(forward: Tensor, backward: Tensor) -> Tensor:
    """Tell which pixels of the first picture are not seen in the second: (N, 1, H, W) bool.

    They are those that the flow back does not bring home, those that leave the picture, and those of unknown flow.
    Paper: Sundaram, Brox and Keutzer, Dense point trajectories by GPU-accelerated large displacement optical flow, 2010
    """
    back = warp(backward, forward)
    lengths = forward.square().sum(1, keepdim=True) + back.square().sum(1, keepdim=True)
    # Written so that NaN counts as not come home.
    home = (forward + back).square().sum(1, keepdim=True) <= 0.01 * lengths + 0.5
    return ~home | outside(forward)


def outside(flow: Tensor) -> Tensor:
    """Tell which pixels move out of the picture, by more than half a pixel: (N, 1, H, W) bool."""
    height, width = flow.shape[-2:]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + flow[:, 1]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 0]
    return ((x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5))[:, None]


def read_kitti(image: streams.Image) -> Tensor:
    """Return the flow (1, 2, H, W) that a 16-bit PNG of KITTI holds, NaN where it is not valid.

    Red and green are 64 * flow + 32768, blue is whether it is valid. Raises DataError for another kind of picture.
    """
    if image.array.ndim != 3 or image.array.shape[2] != 3 or image.array.dtype.itemsize != 2:
        raise errors.DataError("is no flow of KITTI: that is RGB of 16 bits")
    found = torch.from_numpy(image.array.astype("float32")).permute(2, 0, 1)[None]
    return ((found[:, :2] - 32768) / 64).masked_fill(found[:, 2:] == 0, torch.nan)


@torch.no_grad()
def estimate(a: Tensor, b: Tensor, *, scale: float = 0.5, polish: bool = False) -> Tensor:
    """Return the flow from picture a to picture b, both (1, 3, H, W) in [0, 1]: (1, 2, H, W), known everywhere.

    From small pictures to larger ones, up to `scale` of their size: the best match within 3 pixels, matches taken over
    from neighbours where they fit better, then TV-L1 on descriptors that do not depend on the light. With `polish` it
    takes fewer steps there and is refined once more, by fractions of pixels, at the pictures' own size.
    Papers: Zach, Pock and Bischof, A duality based approach for realtime TV-L1 optical flow, 2007; Steinbrücker,
    Pock and Cremers, Large displacement optical flow computation without warping, 2009; propagation of matches: Barnes
    et al., PatchMatch, 2009.
    """
    size = a.shape[-2:]
    sizes = [[max(round(side * scale), 1) for side in size]]
    while min(sizes[-1]) >= 2 * _COARSEST:
        sizes.append([side // 2 for side in sizes[-1]])
    pyramid = [(a.float(), b.float())]
    for level in sizes:
        pyramid.append(tuple(F.interpolate(x, level, mode="bilinear", antialias=True) for x in pyramid[-1]))
    flow = a.new_zeros(1, 2, *sizes[-1], dtype=torch.float32)
    for number, (small_a, small_b) in enumerate(reversed(pyramid[1:]), 1):
        flow = resize(flow, small_a.shape[-2:])
        first, second, weight = _describe(small_a), _describe(small_b), _smoothness(small_a)
        # At the last, largest level most is settled, and a wide search would take most of the time.
        flow = _search(first, second, flow, 1 if number == len(sizes) else 3)
        flow = _smooth(flow, weight, 2.0, 8, _duals(flow))
        flow = _propagate(first, second, flow)
        flow = _refine(first, second, flow, weight, *((2, 3) if polish else (3, 5)))
    flow = resize(flow, size)
    return _refine(_describe(a), _describe(b), flow, _smoothness(a), 1, 3) if polish else flow


def resize(flow: Tensor, size) -> Tensor:
    """Scale a flow to (height, width), its lengths along with it."""
    factors = flow.new_tensor([size[1] / flow.shape[-1], size[0] / flow.shape[-2]]).view(1, 2, 1, 1)
    return F.interpolate(flow, tuple(size), mode="bilinear") * factors


def _describe(image: Tensor) -> Tensor:
    """Return luma less its mean around each pixel, over its deviation there, and its slopes: (1, 3, H, W)."""
    luma = (image * image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    luma = luma - _blur(luma)
    luma = luma / (_blur(luma * luma).sqrt() + 0.03)
    return torch.cat((luma, 2 * _slopes(luma)), 1)


def _blur(x: Tensor) -> Tensor:
    """Blur one channel by a Gaussian of 3 pixels."""
    kernel = torch.exp(-torch.arange(-7.0, 8, device=x.device).square() / 18)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, 15)
    x = F.conv2d(F.pad(x, (7, 7, 0, 0), mode="replicate"), kernel)
    return F.conv2d(F.pad(x, (0, 0, 7, 7), mode="replicate"), kernel.mT)


def _slopes(x: Tensor) -> Tensor:
    """Return the central differences of (1, C, H, W) to the right and down: (1, 2C, H, W)."""
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return torch.cat((p[..., 1:-1, 2:] - p[..., 1:-1, :-2], p[..., 2:, 1:-1] - p[..., :-2, 1:-1]), 1) / 2


def _smoothness(image: Tensor) -> Tensor:
    """Return how much the flow is to be smooth at each pixel, (1, 1, H, W): less at edges, where things end."""
    luma = image.mean(1, keepdim=True)
    right = F.pad(luma.diff(dim=3), (0, 1))
    down = F.pad(luma.diff(dim=2), (0, 0, 0, 1))
    return torch.exp(-12 * (right * right + down * down).sqrt()).clamp(min=0.1)


def _cost(first: Tensor, found: Tensor) -> Tensor:
    """Return how badly descriptors (K, C, H, W) fit the first picture's, summed over 5 x 5 pixels: (K, H, W)."""
    cost = F.pad((found - first).abs_().clamp_(max=_TRUNCATED).sum(1), (2, 2, 2, 2))
    # Ten times faster than avg_pool2d.
    for dim in (1, 2):
        size = cost.shape[dim] - 4
        total = cost.narrow(dim, 0, size) + cost.narrow(dim, 1, size)
        for start in (2, 3, 4):
            total += cost.narrow(dim, start, size)
        cost = total
    return cost


def _search(first: Tensor, second: Tensor, flow: Tensor, reach: int) -> Tensor:
    """Return for each pixel the best flow among those that differ from its own by up to `reach` pixels each way."""
    (channels, height, width), side = second.shape[1:], 2 * reach + 1
    padded = F.pad(second, (reach,) * 4, mode="replicate")[0]
    # All shifts of the second picture as channels, so that they share one computation of where to sample.
    shifted = padded.unfold(1, height, 1).unfold(2, width, 1)
    found = warp(shifted.reshape(1, -1, height, width), flow).view(channels, side * side, height, width)
    steps = torch.arange(-reach, reach + 1, dtype=flow.dtype, device=flow.device)
    steps = torch.stack((steps.repeat(side), steps.repeat_interleave(side)), 1)
    # Of matches that are equally good, the nearest.
    cost = _cost(first, found.transpose(0, 1)) + 0.08 * steps.square().sum(1).view(-1, 1, 1)
    return flow + steps[cost.min(0).indices].permute(2, 0, 1)  # argmin takes four times as long


def _propagate(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    """Return for each pixel the best of its own flow and those of pixels 4 and 2 away: small things get theirs back."""
    height, width = flow.shape[-2:]
    for step in (4, 2):
        padded = F.pad(flow, (step,) * 4, mode="replicate")
        offsets = ((step, step), (step, 0), (step, 2 * step), (0, step), (2 * step, step))
        flows = torch.cat([padded[..., y : y + height, x : x + width] for y, x in offsets])
        best = _cost(first, warp(second.expand(len(flows), -1, -1, -1), flows)).min(0).indices
        flow = flows.gather(0, best.expand(1, 2, height, width))
    return flow


def _refine(first: Tensor, second: Tensor, flow: Tensor, weight: Tensor, times: int, steps: int) -> Tensor:
    """Return the flow brought to fractions of pixels: TV-L1, linearised so many times, each with so many steps."""
    theta, duals = 0.15, _duals(flow)
    for _ in range(times):
        found = warp(second, flow)
        right, down = _slopes(found).chunk(2, 1)
        start, offset = flow, found - first
        for _ in range(steps):
            moved = flow - start
            left = offset + right * moved[:, :1] + down * moved[:, 1:]
            # The absolute value of each channel's difference as a weighted square: a system of 2 x 2 for each pixel.
            w = theta * torch.rsqrt(left * left + 1e-4)
            wr, wd = w * right, w * down
            rr, dd, rd = ((p * q).sum(1, keepdim=True) for p, q in ((wr, right), (wd, down), (wr, down)))
            r, d = (wr * left).sum(1, keepdim=True), (wd * left).sum(1, keepdim=True)
            rr, dd = rr + 1, dd + 1
            step = torch.cat((dd * r - rd * d, rr * d - rd * r), 1) / (rr * dd - rd * rd)
            # With one step instead of two, the flow of a plain pan is three times as far off.
            flow = _smooth(flow - step, weight, theta, 2, duals)
    return flow


def _duals(flow: Tensor) -> Tensor:
    """Return the dual variables of `_smooth` to begin with: (1, 4, H, W), two to the right, two down."""
    return flow.new_zeros(1, 4, *flow.shape[-2:])


def _smooth(flow: Tensor, weight: Tensor, theta: float, count: int, duals: Tensor) -> Tensor:
    """Take `count` steps to the least v of weight * |slopes of v| + |v - flow|^2 / (2 theta); the duals go along."""
    right, down = duals[:, :2], duals[:, 2:]
    v = flow + theta * _divergence(right, down)
    for _ in range(count):
        right[..., :-1].add_(v[..., 1:] - v[..., :-1], alpha=0.25 / theta)
        down[..., :-1, :].add_(v[..., 1:, :] - v[..., :-1, :], alpha=0.25 / theta)
        duals *= (weight * torch.rsqrt(duals.square().sum(1, keepdim=True) + 1e-12)).clamp_(max=1)
        v = flow + theta * _divergence(right, down)
    return v


def _divergence(right: Tensor, down: Tensor) -> Tensor:
    total = right + down
    total[..., 1:] -= right[..., :-1]
    total[..., 1:, :] -= down[..., :-1, :]
    return total
