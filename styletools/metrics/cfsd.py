"""cfsd: how much the output's places differ from the content's in which other places they are like.

Content Feature Structural Distance, arXiv:2312.09008 (Chung et al., StyleID, 2024). Both pictures are scaled to 256 x
256; F are the features of relu3_1, a row for each of the 64 x 64 places; each row of softmax(F Fᵀ) says which places
are like one. The score is the Kullback-Leibler divergence from the content's rows to the output's, averaged. 0: the
same structure; about 0.01: blurred; 0.1 to 1: restyled, or another picture. F Fᵀ depends on how large a network's
features are, by which published weights of VGG-19 differ a hundredfold: here it is divided by the number of channels
and the mean square of the content's features, so that scores of networks may be compared, but not with those of the
paper. Weakness: what is strong in the features decides; faint structure may vanish unseen. Of slim, lifted features
are used.
"""

import torch

from styletools.metrics import Metric, _look

NEEDS = ("content",)
SCOPE = "pair"
BETTER = "lower"
RANGE = "0 and more, in nats"
NETWORK = "slim"
NETWORKS = ("cd16x", "slim", "vgg16", "vgg19", "vgg_normalised")
LAYER = "relu3_1"


class StructuralDistance(Metric):
    """Divergence of the self-similarities of output and content."""

    def __init__(self, network="slim", *, device="cpu"):
        super().__init__(network, device=device)
        self.judge = _look.network(network, device)

    @torch.no_grad()
    def pair(self, output, content, style=None):
        if output is content:
            return {"": 0.0}
        found, wanted = (look.scaled((256, 256)) for look in (output, content))
        features = self._features(wanted)
        scale = features.shape[1] * features.square().mean().clamp_min(1e-12)
        p = wanted.once(("cfsd", self.network), lambda: _similarity(features, scale))
        q = _similarity(self._features(found), scale)
        return {"": max(float((p.exp() * (p - q)).sum(1).mean()), 0.0)}

    def _features(self, look):
        """Return (places, channels)."""
        features = self.judge.lift(look.features(self.judge, (LAYER,)))[LAYER]
        return features[0].flatten(1).T.float()


def _similarity(features, scale):
    """Return the logarithms of how alike the others are to each place, (places, places)."""
    return (features @ features.T / scale).log_softmax(1)
