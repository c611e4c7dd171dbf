"""Networks that are looked through, not trained."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Within, what goes through these networks asks for no gradients of their weights, but passes on its own.

    So a generator learns from a discriminator without the work, or the trace, of gradients for that one.
    """
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
