"""RAFT: optical flow by a trained network, torchvision's, where its weights are at hand or may be downloaded.

Paper: arXiv:2003.12039 (Teed and Deng, 2020), the small network. It takes far longer than `nn/flow.py` on a CPU.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from styletools import backbones, errors
from styletools.backbones._backbone import read_state_dict

MULTIPLE, SMALLEST = 8, 128  # of the sides of what the network takes


class Raft:
    """Estimates the flow from one picture to another: call it with both."""

    def __init__(self, device="cpu"):
        """Raises Unavailable where torchvision or the weights are not to be had, DataError for other weights."""
        try:
            from torchvision.models import optical_flow
        except ImportError as error:
            raise errors.Unavailable("RAFT needs torchvision: pip install torchvision") from error
        url = optical_flow.Raft_Small_Weights.C_T_V2.url
        path = backbones.find_published("RAFT", url, url.rpartition("-")[2].partition(".")[0])
        with torch.random.fork_rng(devices=[]):
            network = optical_flow.raft_small(weights=None)
        try:
            network.load_state_dict(read_state_dict(path))
        except RuntimeError as error:
            raise errors.DataError(f"{path}: not torchvision's weights of the small RAFT") from error
        self.network = network.eval().to(device)

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the flow from a to b, both (1, 3, H, W) in [0, 1]: (1, 2, H, W) in pixels."""
        height, width = a.shape[-2:]
        wanted = [max(-(-side // MULTIPLE) * MULTIPLE, SMALLEST) for side in (height, width)]
        edges = (0, wanted[1] - width, 0, wanted[0] - height)
        pair = [F.pad(image.float(), edges, mode="replicate") * 2 - 1 for image in (a, b)]
        return self.network(*pair)[-1][..., :height, :width]
