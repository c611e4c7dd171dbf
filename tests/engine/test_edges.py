"""Mirroring at the edges."""

import numpy as np
import pytest

from styletools.engine import edges


@pytest.mark.parametrize("side, multiple, wanted", [(1, 1, 16), (16, 4, 16), (17, 4, 20), (30, 32, 32), (33, 32, 64)])
def test_sides(side, multiple, wanted):
    assert edges.padded(side, multiple) == wanted


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_places_are_those_of_numpys_reflection(side):
    expected = np.pad(np.arange(side), (0, 20), mode="reflect")
    assert (edges.mirrored(0, side + 20, side) == expected).all()
    assert (edges.mirrored(5, 9, side) == expected[5:14]).all()
