"""Which of two pictures people prefer: a blind comparison page for raters, and what their answers say of the methods.

Source: R. A. Bradley and M. E. Terry, "Rank analysis of incomplete block designs" (1952), fitted as in D. R. Hunter,
"MM algorithms for generalized Bradley-Terry models" (2004).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from styletools import errors, log, streams
from styletools.engine import page

SIDE, QUALITY = 768, 92  # of the pictures in a page
LARGE = 50_000_000  # bytes: above, browsers of phones give up
QUESTION = "Which picture is the better painting of this photograph?"
CHOICES = ("left", "right", "tie")
FEW_RATERS = 5  # with fewer, intervals come from answers instead of raters


# ---- the page ----


def write(
    path_or_file: str | os.PathLike | BinaryIO,
    methods: dict[str, dict[str, str | os.PathLike]],
    *,
    contents: dict[str, str | os.PathLike] | None = None,
    styles: dict[str, str | os.PathLike] | None = None,
    trials: int | None = None,
    seed: int = 0,
    question: str = QUESTION,
) -> int:
    """Write a page that shows two methods' outputs side by side, again and again; return how many trials it has.

    methods: {name: {key: path of the output}}, two or more, all with the same keys; contents, styles: {key: path} of
    what is shown above as reference. Without `trials` every two methods meet on every key; with it so many of these
    meetings are drawn by `seed`, all pairs of methods and all keys as equally often as can be.

    The page needs no network, and names methods nowhere: each rater sees the trials in an order and on sides of their
    own, and in the end has a file of answers for `read_results`. Raises UsageError where keys do not match.
    """
    keys = _check(methods, contents, styles)
    if trials is not None and trials < 1:
        raise errors.UsageError(f"{trials} trials: at least one is needed")
    names = sorted(methods)
    drawn = _draw(len(names), len(keys), trials, random.Random(seed))
    pictures, numbers = page.Pictures(SIDE, QUALITY), {}

    def number(path: str | os.PathLike) -> int:
        if path not in numbers:
            numbers[path] = pictures.add(streams.open_image(path, streams.Limits(short_side=SIDE)))
        return numbers[path]

    shown = []
    # In an order that tells nothing, else the place of a picture in the file would; but always the same, since
    # browsers remember how far they came.
    for key, a, b in sorted(drawn, key=lambda trial: hashlib.sha256(repr(trial).encode()).digest()):
        entry = {"key": key, "methods": (a, b), "pictures": [number(methods[names[m]][keys[key]]) for m in (a, b)]}
        for role, paths in (("content", contents), ("style", styles)):
            if paths:
                entry[role] = number(paths[keys[key]])
        shown.append(entry)
    compared = [[keys[t["key"]], [names[m] for m in t["methods"]], [pictures.digests[n] for n in t["pictures"]]]
                for t in shown]  # fmt: skip
    identity = hashlib.sha256(json.dumps([question, compared]).encode()).hexdigest()[:16]
    hidden = json.dumps({"methods": names, "keys": keys}).encode()
    data = {"study": identity, "question": question, "trials": shown, "pictures": pictures.embedded}
    data["names"] = base64.b64encode(hidden).decode()  # not to be read by accident: raters must not know
    size = page.write(path_or_file, "study", data)
    if size > LARGE:
        log.warning(f"the page has {size / 1e6:.0f} MB, which is much for browsers: fewer trials make it smaller")
    return len(shown)


def _check(methods: dict, contents: dict | None, styles: dict | None) -> list[str]:
    """Return the keys that all have. Raises UsageError that lists those that are not in all."""
    if len(methods) < 2:
        raise errors.UsageError("a study compares two methods or more")
    keys = sorted(set().union(*methods.values()))
    given = {**methods} | {what: paths for what, paths in (("contents", contents), ("styles", styles)) if paths}
    missing = [f"{name} has no {', '.join(lost)}" for name, paths in given.items()
               if (lost := [key for key in keys if key not in paths])]  # fmt: skip
    if missing:
        raise errors.UsageError("; ".join(missing))
    if not keys:
        raise errors.UsageError("there are no pictures to compare")
    return keys


def _draw(methods: int, keys: int, trials: int | None, rng: random.Random) -> list[tuple[int, int, int]]:
    """Return (key, method, method) of all meetings, or of a balanced random part of them."""
    pairs = list(itertools.combinations(range(methods), 2))
    if trials is None or trials >= len(pairs) * keys:
        return [(key, *pair) for key in range(keys) for pair in pairs]
    rng.shuffle(pairs)
    used, drawn = [0] * keys, set()
    for _, pair in zip(range(trials), itertools.cycle(pairs)):
        left = [key for key in range(keys) if (key, *pair) not in drawn]
        key = min(left, key=lambda key: (used[key], rng.random()))
        used[key] += 1
        drawn.add((key, *pair))
    return sorted(drawn)


# ---- the answers ----


def read_results(paths: Iterable[str | os.PathLike]) -> list[dict]:
    """Return what raters' files of answers hold, checked.

    Of files by the same rater, downloaded at different times, the one with the most answers counts. Raises
    DataError for a file that is no result of a study, DoesNotFit for results of different studies.
    """
    found: dict[str, dict] = {}
    first = None
    for path in paths:
        name = os.fspath(path)
        try:
            result = _checked(json.loads(Path(path).read_bytes()))
        except OSError as error:
            raise errors.from_os_error(error, name) from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise errors.DataError(f"{name}: is no result of a study") from error
        first = first or (name, result["study"])
        if result["study"] != first[1]:
            raise errors.DoesNotFit(f"{name}: is of another study than {first[0]}")
        before = found.get(result["rater"])
        if before is None or len(result["answers"]) > len(before["answers"]):
            found[result["rater"]] = result
    return list(found.values())


def _checked(result: dict) -> dict:
    """Return a result; raises whatever where it is none."""
    if result["styletools"] != "study":
        raise ValueError
    if not all(isinstance(result[name], str) and result[name] for name in ("study", "rater")):
        raise TypeError
    for answer in result["answers"]:
        if not all(isinstance(answer[name], str) for name in ("key", "left", "right")):
            raise TypeError
        if answer["choice"] not in CHOICES or answer["left"] == answer["right"]:
            raise ValueError
    return result


# ---- what the answers say ----


def score(results: list[dict], *, seed: int = 0, resamples: int = 1000) -> dict:
    """Return how often each method was preferred, and how strong that makes it, with 95 % intervals.

    `win_rate` is the share of answers for a method, a tie being half a win for each. `strength` is its logarithmic
    strength after Bradley and Terry, with mean 0: of two methods that differ by d, the stronger is preferred with
    probability 1 / (1 + exp(-d)). A method that won or lost all of its answers has no finite strength; so each is given
    one more answer, half won and half lost, shared out equally over the other methods. For two methods the
    strengths then differ by log((wins + 1/2) / (losses + 1/2)).

    The intervals are quantiles of `resamples` bootstrap samples drawn by `seed`: of raters, where there are five or
    more (people differ, and pictures rated by one person are not independent), else of answers, among which is the one
    that was given, so that a few unanimous answers make no certainty. Those of few raters are a little narrow (of 12
    simulated ones, 90 % of the intervals held the truth), and of raters who all answer alike a point.
    Raises DataError where there are no answers.
    """
    answers = [(a["left"], a["right"], a["choice"], number)
               for number, result in enumerate(results) for a in result["answers"]]  # fmt: skip
    if not answers:
        raise errors.DataError("there are no answers")
    names = sorted({name for left, right, *_ in answers for name in (left, right)})
    index = {name: i for i, name in enumerate(names)}
    count = len(names)
    # Per rater: [winner, loser], and [one, other] of ties in either order, counted half in each.
    won, tied = np.zeros((len(results), count, count)), np.zeros((len(results), count, count))
    for left, right, choice, rater in answers:
        i, j = index[left], index[right]
        if choice == "tie":
            tied[rater, i, j] += 0.5
            tied[rater, j, i] += 0.5
        else:
            winner, loser = (i, j) if choice == "left" else (j, i)
            won[rater, winner, loser] += 1
    raters = [i for i, result in enumerate(results) if result["answers"]]
    rng = np.random.default_rng(seed)
    if len(raters) >= FEW_RATERS:
        samples = _resampled_raters((won + tied)[raters], resamples, rng)
    else:
        samples = _resampled_answers(won.sum(0), tied.sum(0), resamples, rng)
    won, tied = won.sum(0), tied.sum(0)
    rate, strength = _rates(won + tied), bradley_terry(won + tied)
    rate_low, rate_high = _interval(_rates(samples))
    low, high = _interval(bradley_terry(samples))
    methods = [{
        "name": names[i], "wins": int(won[i].sum()), "losses": int(won[:, i].sum()), "ties": round(2 * tied[i].sum()),
        "win_rate": float(rate[i]), "win_rate_low": float(rate_low[i]), "win_rate_high": float(rate_high[i]),
        "strength": float(strength[i]), "low": float(low[i]), "high": float(high[i]),
    } for i in np.argsort(-strength, kind="stable")]  # fmt: skip
    return {
        "studies": len({result["study"] for result in results}),
        "raters": len({results[i]["rater"] for i in raters}),
        "answers": len(answers),
        "methods": methods,
        "pairs": [{
            "a": names[i], "b": names[j], "a_wins": int(won[i, j]), "b_wins": int(won[j, i]),
            "ties": round(2 * tied[i, j]),
        } for i, j in itertools.combinations(range(count), 2) if (won + tied)[i, j] + (won + tied)[j, i]],
    }  # fmt: skip


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Return the log-strengths (..., M), of mean 0, of M methods from how often i was preferred to j, (..., M, M).

    To all goes the prior that `score` tells of. Found by minorise-maximise steps, which never lose likelihood.
    """
    count = wins.shape[-1]
    wins = wins + _prior(count)
    met, total = wins + np.swapaxes(wins, -1, -2), wins.sum(-1)
    log_strength = np.zeros(wins.shape[:-1])
    for _ in range(20_000):
        strength = np.exp(log_strength)
        new = np.log(total / (met / (strength[..., :, None] + strength[..., None, :])).sum(-1))
        new -= new.mean(-1, keepdims=True)
        change = np.abs(new - log_strength).max(initial=0)
        log_strength = new
        if change < 1e-9:
            break
    return log_strength


def _prior(count: int) -> np.ndarray:
    """Return half a win and half a loss for each method, shared out over the others."""
    return (1 - np.eye(count)) * 0.5 / (count - 1)


def _rates(wins: np.ndarray) -> np.ndarray:
    """Return the shares of the answers about each method that are for it; NaN where there are none."""
    for_it, against = wins.sum(-1), wins.sum(-2)
    with np.errstate(invalid="ignore"):
        return for_it / (for_it + against)


def _interval(samples: np.ndarray) -> np.ndarray:
    """Return the 2.5 % and the 97.5 % quantile over the first axis."""
    return np.nanquantile(samples, (0.025, 0.975), axis=0)


def _resampled_raters(wins: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    raters = len(wins)
    times = rng.multinomial(raters, np.full(raters, 1 / raters), resamples)
    return np.einsum("br,rij->bij", times, wins)


def _resampled_answers(won: np.ndarray, tied: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw as many answers as there are, among them the prior's, again and again."""
    count = len(won)
    met = won + won.T + tied + tied.T > 0
    cells = np.concatenate([((won + _prior(count)) * met).ravel(), (2 * np.triu(tied)).ravel()])
    drawn = rng.multinomial(round(won.sum() + tied.sum()), cells / cells.sum(), resamples)
    wins, ties = np.split(drawn.reshape(resamples, 2 * count, count), 2, axis=1)
    return wins + (ties + np.swapaxes(ties, 1, 2)) / 2
