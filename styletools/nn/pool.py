"""A pool of pictures that a generator made before, for its discriminator not to forget them."""

import torch
from torch import Tensor, nn

from styletools import losses


class Pool(nn.Module):
    """Keeps up to `capacity` pictures and gives out some of them in place of new ones (arXiv:1612.07828).

    It is a module without weights, whose state (pictures in 8 bits, and how many there are) is saved and loaded with
    those of networks; what it draws comes from torch's own generator. All its pictures have one size: when another
    comes, it begins anew.
    """

    def __init__(self, capacity: int = 50):
        super().__init__()
        self.capacity = capacity
        self.register_buffer("pictures", torch.empty(0, 3, 0, 0, dtype=torch.uint8))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return as many pictures as are given, (N, 3, H, W) in [0, 1], without gradients.

        Until it is full, all are kept and come back. Then, of each, either it comes back itself, or it is kept and one
        of those that were there comes back in its place.
        """
        images = images.detach()
        if not self.capacity:
            return images
        if self.pictures.shape[1:] != images.shape[1:]:
            self.pictures = images.new_empty((self.capacity, *images.shape[1:]), dtype=torch.uint8).zero_()
            self.count.zero_()
        given, count = images.clone(), int(self.count)
        for i, image in enumerate(images):
            place = count
            if count == self.capacity:
                if torch.rand(()) < 0.5:
                    continue
                place = int(torch.randint(self.capacity, ()))
                given[i] = self.pictures[place].to(images.dtype) / 255
            else:
                count += 1
            self.pictures[place] = image.float().mul(255).round().clamp(0, 255).byte()
        self.count.fill_(count)
        return given

    def diversity(self) -> Tensor:
        """Return how different the pictures are that it keeps (losses.diversity), by every fourth row and column."""
        return losses.diversity(self.pictures[: int(self.count), :, ::4, ::4].float() / 255)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        """Take over the size of the pictures in a saved state."""
        saved = state_dict.get(f"{prefix}pictures")
        if saved is not None and saved.shape != self.pictures.shape and len(saved) in (0, self.capacity):
            self.pictures = saved.new_empty(saved.shape, device=self.pictures.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
