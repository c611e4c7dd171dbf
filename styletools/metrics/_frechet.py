"""The Fréchet distance between two sets of pictures, each a Gaussian in a space of features; its statistics files.

Paper: Dowson and Landau, The Fréchet Distance between Multivariate Normal Distributions, 1982; arXiv:1706.08500
(Heusel et al., 2017) for pictures. Statistics files are .npz with `mu` (D,) and `sigma` (D, D), as pytorch-fid writes
and reads them, and, where we wrote them, `network`.
"""

import math
import os
import zipfile
import zlib

import numpy as np
import torch

from styletools import errors, files
from styletools.metrics import Metric, _inception, _look

LAYER = "relu4_1"


def statistics(rows):
    """Return mean (D,) and covariance (D, D), divided by N - 1, of (N, D), in float64; one row alone varies by 0."""
    rows = np.asarray(rows, np.float64)
    mean = rows.mean(0)
    centred = rows - mean
    return mean, centred.T @ centred / max(len(rows) - 1, 1)


def frechet(mu, sigma, other_mu, other_sigma):
    """Return |mu1 - mu2|² + tr(S1 + S2 - 2 (S1 S2)^½), 0 and more; covariances may be singular."""
    values, vectors = np.linalg.eigh(sigma)
    there = values > max(values[-1], 0) * len(values) * np.finfo(float).eps
    # With S1 = R Rᵀ, the eigenvalues of S1 S2 are those of Rᵀ S2 R: symmetric, and smaller where S1 is singular.
    root = vectors[:, there] * np.sqrt(values[there])
    common = np.sqrt(np.linalg.eigvalsh(root.T @ other_sigma @ root).clip(0)).sum()
    total = np.square(mu - other_mu).sum() + np.trace(sigma) + np.trace(other_sigma) - 2 * common
    return max(float(total), 0.0)


def save_npz(path, mu, sigma, network=""):
    """Write a statistics file, atomically."""
    with files.atomic(path) as out:
        np.savez(out, mu=mu, sigma=sigma, **({"network": network} if network else {}))


def load_npz(path):
    """Return mu, sigma (float64) and the network, "" where that is not said, of a statistics file.

    Raises DataError for anything else; no object in it is ever unpickled.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mu, sigma = (np.asarray(file[key], np.float64) for key in ("mu", "sigma"))
            network = str(file["network"]) if "network" in file.files else ""
    except OSError as error:
        if not error.errno:  # numpy's own, for what has no known beginning
            raise errors.DataError(f"{path}: not a statistics file") from error
        raise errors.from_os_error(error, os.fspath(path)) from error
    except (LookupError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise errors.DataError(f"{path}: not a statistics file (.npz with mu and sigma)") from error
    if mu.ndim != 1 or not mu.size or sigma.shape != (len(mu), len(mu)):
        raise errors.DataError(f"{path}: mu and sigma have shapes {mu.shape} and {sigma.shape}, not (D,) and (D, D)")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise errors.DataError(f"{path}: holds what is not a number")
    return mu, sigma, network


def seeing(network, device="cpu"):
    """Return what maps a Look to its features (D,): of Inception, or of a backbone averaged over the picture.

    A backbone's are divided by the root mean square of what it sees in noise, which is always the same: networks
    differ a hundredfold in how large their features are, and their distances would by the square of that.
    """
    if network == "inception":
        return _inception.load(device).features
    judge = _look.network(network, device)
    layer = LAYER if LAYER in judge.layers else judge.layers[-1]
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
    scale = _look.Look(noise).features(judge, (layer,))[layer].float().square().mean().sqrt().clamp_min(1e-6)

    def average(look):
        return (look.features(judge, (layer,))[layer].float().mean((0, 2, 3)) / scale).cpu().numpy()

    return lambda look: look.keep(("pooled", network), lambda: average(look))


class Compared(Metric):
    """What metrics share that compare the Gaussian of the outputs with that of the styles, or of a reference."""

    def __init__(self, network, *, device="cpu"):
        super().__init__(network, device=device)
        self._see = seeing(network, device)
        self.outputs, self.styles = [], []  # features, a row a picture
        self.reference = None

    def pair(self, output, content=None, style=None):
        self.outputs.append(self._see(output))
        if self.reference is None and style is not None:
            self.styles.append(self._see(style))
        return {}

    def use_reference(self, path):
        """Compare with a statistics file instead of the styles. Raises DoesNotFit for one of another network."""
        mu, sigma, network = load_npz(path)
        if network not in ("", self.network):
            raise errors.DoesNotFit(f"{path}: statistics of {network}, not of {self.network}")
        own = len(self._see(_look.Look(torch.zeros(1, 3, 32, 32, device=self.device))))
        if len(mu) != own:
            raise errors.DoesNotFit(f"{path}: statistics of {len(mu)} features, {self.network} has {own}")
        self.reference = mu, sigma

    def statistics(self):
        """Return (mu, sigma) of the outputs."""
        return statistics(self.outputs)

    def save_statistics(self, path):
        """Write the statistics of the outputs, to be the reference of others."""
        save_npz(path, *self.statistics(), self.network)

    def distance(self):
        """Return the Fréchet distance; not a number where there are no pictures, or nothing to compare them with."""
        if not self.outputs or not (self.reference or self.styles):
            return math.nan
        return frechet(*self.statistics(), *(self.reference or statistics(self.styles)))
