"""Conditions under which an evaluation fails: `lpips>0.6`, `style > 1.1*baseline.style`, `max(lpips) >= 0.9`.

A comparison (< <= > >=) of two sums of products of numbers and scores. A score is called as in the summary: `style`,
`style.relu1_1`, `fd:slim`; `identity.`, `target.` and `baseline.` before it take it from the control rows or from the
baseline; `min()` and `max()` take the least and the greatest of all pairs. Standard library only.
"""

import ast
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from styletools import errors

TESTS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_WORD = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])"
    r"|(?P<score>(?:(?:max|min)\s*\(\s*)?[A-Za-z_]\w*(?:[.:][A-Za-z_]\w*)*)"
    r"|(?P<sign>[-+*/()])|(?P<test>[<>]=?))\s*"
)
_SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_GRAMMAR = (
    *_SIGNS, ast.BinOp, ast.UnaryOp, ast.USub, ast.UAdd, ast.Constant, ast.Subscript, ast.Name, ast.expr_context,
)  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """One condition: `text` as it was written, the scores it speaks of, and what it compares."""

    text: str
    scores: tuple[str, ...]
    _left: ast.expr
    _test: Callable[[float, float], bool]
    _right: ast.expr

    def holds(self, score: Callable[[str], float | None]) -> bool:
        """Tell whether the condition holds. `score` returns the value of a score, None where it has none.

        Raises DataError where a score has no value: what cannot be compared must not pass.
        """
        values = []
        for name in self.scores:
            value = score(name)
            if value is None:
                raise errors.DataError(f"--fail-if {self.text!r}: {name} has no value")
            values.append(value)
        try:
            left, right = _value(self._left, values), _value(self._right, values)
        except (ZeroDivisionError, OverflowError) as error:
            raise errors.DataError(f"--fail-if {self.text!r}: {error}") from error
        if not (math.isfinite(left) and math.isfinite(right)):
            raise errors.DataError(f"--fail-if {self.text!r}: compares what is no number")
        return self._test(left, right)


def parse(text: str) -> Condition:
    """Read one condition. Raises UsageError for anything else."""
    scores: list[str] = []
    sides: list[str] = [""]
    test, place = "", 0
    while place < len(text):
        found = _WORD.match(text, place)
        if not found:
            raise _wrong(text, f"what is {text[place:].strip()!r}?")
        place, kind, word = found.end(), found.lastgroup, found[found.lastgroup]
        if kind == "test":
            if test:
                raise _wrong(text, "one comparison expected")
            test = word
            sides.append("")
        elif kind == "score":
            if "(" in word:
                if text[place : place + 1] != ")":
                    raise _wrong(text, "min() and max() take the name of one score")
                word, place = re.sub(r"\s", "", word) + ")", place + 1
            sides[-1] += f" s[{len(scores)}]"
            scores.append(word)
        else:
            sides[-1] += f" {word}"
    if not test:
        raise _wrong(text, "a comparison expected, as in lpips>0.6")
    if not scores:
        raise _wrong(text, "it speaks of no score")
    try:
        left, right = (ast.parse(side.strip(), mode="eval").body for side in sides)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise _wrong(text, "that is no formula") from error
    for node in (*ast.walk(left), *ast.walk(right)):
        if not isinstance(node, _GRAMMAR):  # two words, or two signs, that Python takes for something else
            raise _wrong(text, "that is no formula")
    return Condition(text, tuple(scores), left, TESTS[test], right)


def _wrong(text: str, what: str) -> errors.UsageError:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return errors.UsageError(f"--fail-if {shown!r}: {what}")


def _value(node: ast.expr, scores: list[float]) -> float:
    if isinstance(node, ast.Constant):
        return float(node.value)
    if isinstance(node, ast.Subscript):
        return scores[node.slice.value]
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, scores)
        return -value if isinstance(node.op, ast.USub) else value
    return _SIGNS[type(node.op)](_value(node.left, scores), _value(node.right, scores))
