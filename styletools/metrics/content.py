"""content: how much of what the photograph shows is gone from the output, over what is gone in the painting.

Paper: arXiv:1508.06576 (Gatys et al., 2015). The mean squared difference of relu4_1 to the content's, divided by that
of the painting, which is scaled and cropped to the same size. 0: untouched; 1: as far as the painting itself, all is
gone. `content.mse` divides by the mean square of the content's features instead. Not defined (null) where style and
content are the same. Weakness: it is not blind to style: repainting moves these features, too, and the photograph
itself scores best. Features of slim are lifted into VGG-19's space, which brings scores nearer to VGG-19's (see
style).
"""

from styletools.metrics import Metric, _look
from styletools.metrics._ratio import ratio

NEEDS = ("content", "style")
SCOPE = "pair"
BETTER = "lower"
RANGE = "0 and more, about 1 when all is gone"
NETWORK = "slim"
NETWORKS = ("cd16x", "slim", "vgg16", "vgg19", "vgg_normalised")
LAYER = "relu4_1"


class ContentDistance(Metric):
    """Squared distance of deep features to the content's, over that of the style."""

    def __init__(self, network="slim", *, device="cpu"):
        super().__init__(network, device=device)
        self.judge = _look.network(network, device)

    def pair(self, output, content, style):
        looks = output, content, style.fitted(output.image.shape[-2:])
        found, wanted, other = map(self._see, looks)
        lost = (found - wanted).square().mean()
        return {"": ratio(lost, (other - wanted).square().mean()), "mse": ratio(lost, wanted.square().mean())}

    def _see(self, look):
        def lifted():
            return self.judge.lift({LAYER: look.features(self.judge)[LAYER]})[LAYER]

        return look.keep(("content", self.network), lifted)
