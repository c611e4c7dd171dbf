"""Conditions of --fail-if: what they mean, and what is none."""

import pytest

from styletools import errors
from styletools.cli import _gate

SCORES = {
    "lpips": 0.7, "style": 0.2, "style.relu1_1": 0.5, "fd:slim": 3.0, "baseline.style": 0.1, "max(lpips)": 0.9,
    "min(lpips)": 0.4, "identity.lpips": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "text, expected",
    [
        ("lpips>0.6", True),
        ("lpips > .7", False),
        ("lpips>=7e-1", True),
        ("lpips<0.6", False),
        ("lpips<=0.7", True),
        ("style>1.1*baseline.style", True),
        ("style > 2*baseline.style", False),
        ("2*(style+0.1)-lpips/0.7 < -0.3", True),
        ("-lpips < -0.6", True),
        ("max(lpips) > 0.8", True),
        ("min( lpips ) > 0.5", False),
        ("fd:slim>=3", True),
        ("style.relu1_1>0.4", True),
        ("lpips<=identity.lpips", False),
        ("0.6<lpips", True),
    ],
)
def test_meaning(text, expected):
    assert _gate.parse(text).holds(SCORES.get) is expected


def test_scores_are_known_before_they_are_measured():
    assert _gate.parse("style>1.1*baseline.style+max(lpips)").scores == ("style", "baseline.style", "max(lpips)")


@pytest.mark.parametrize(
    "text",
    [
        "", "lpips", "lpips>", ">0.6", "lpips>0.6>0.5", "lpips==0.7", "lpips>0.6x", "lpips>1 2", "lpips 3>1", "2**3>1",
        "2//3>1", "max(1)>2", "max(lpips>1", "max(lpips, style)>1", "foo(2)>1", "s[0]>1", "a,b>1", "()>1", "lpips>0.6;",
        "__import__('os')>1", "lpips.__class__>1 if 1 else 0", "(" * 10000 + ">1", "~lpips>1", "not lpips>1",
    ],
)  # fmt: skip
def test_what_is_no_condition(text):
    with pytest.raises(errors.UsageError, match="--fail-if"):
        _gate.parse(text)


@pytest.mark.parametrize("text", ["ssim>0.5", "lpips/identity.lpips>1"])
def test_what_has_no_value_does_not_pass(text):
    with pytest.raises(errors.DataError, match="no value|division by zero"):
        _gate.parse(text).holds(SCORES.get)
