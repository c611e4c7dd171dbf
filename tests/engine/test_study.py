"""The blind comparison: its page, in the hands of a rater, and what answers say of the methods."""

import base64
import copy
import io
import itertools
import json
import math
import random
import re
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from styletools import errors
from styletools.engine import study

METHODS = ("zeta-painter", "alpha-painter")


@pytest.fixture
def outputs(tmp_path):
    """Return {method: {key: path}} of two methods and four keys; each picture is of a colour of its own."""
    made = {}
    for i, name in enumerate(METHODS):
        made[name] = {}
        for j in range(4):
            path = tmp_path / f"{name}-{j}.png"
            Image.new("RGB", (1000 + 50 * j, 1000), (60 * j, 200 * i, 90)).save(path)
            made[name][f"photo-{j}"] = path
    return made


def embedded(path) -> dict:
    """Return the data that a page holds."""
    page = path.read_bytes()
    return json.loads(re.search(rb'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


# ---- the page as a file ----------------------------------------------------------------------------------


def test_a_page_holds_each_picture_once_and_names_no_method(outputs, tmp_path):
    path = tmp_path / "study.html"
    contents = dict.fromkeys(outputs["zeta-painter"], outputs["zeta-painter"]["photo-0"])
    assert study.write(path, outputs, contents=contents) == 4
    told = embedded(path)
    assert len(told["pictures"]) == 8, "the reference is one of the outputs"
    for each in told["pictures"]:
        picture = Image.open(io.BytesIO(base64.b64decode(each["jpeg"])))
        assert picture.format == "JPEG" and max(picture.size) == 768 and picture.size == (each["width"], each["height"])
    source = path.read_text()
    assert not [word for word in (*METHODS, "photo-") if word in source]
    for trial in told["trials"]:
        assert "content" in trial and "style" not in trial
    again = tmp_path / "again.html"
    study.write(again, outputs, contents=contents, seed=5)
    assert embedded(again)["study"] == told["study"], "of all meetings the seed chooses none"
    study.write(again, outputs, contents=contents, question="Which?")
    assert embedded(again)["study"] != told["study"]


def test_keys_must_match(outputs, tmp_path):
    del outputs["alpha-painter"]["photo-1"], outputs["alpha-painter"]["photo-3"]
    with pytest.raises(errors.UsageError, match="alpha-painter has no photo-1, photo-3$"):
        study.write(tmp_path / "s.html", outputs)
    del outputs["alpha-painter"]
    with pytest.raises(errors.UsageError, match="two methods or more"):
        study.write(tmp_path / "s.html", outputs)
    outputs["other"] = outputs["zeta-painter"]
    with pytest.raises(errors.UsageError, match="styles has no photo-0, photo-1, photo-2, photo-3"):
        study.write(tmp_path / "s.html", outputs, styles={"x": "y"})
    with pytest.raises(errors.UsageError, match="no pictures"):
        study.write(tmp_path / "s.html", {"a": {}, "b": {}})
    with pytest.raises(errors.UsageError, match="at least one"):
        study.write(tmp_path / "s.html", outputs, trials=0)
    outputs["other"] = outputs["other"] | {"photo-0": tmp_path / "gone.png"}
    with pytest.raises(errors.MissingInput, match="gone.png"):
        study.write(tmp_path / "s.html", outputs)
    assert not (tmp_path / "s.html").exists()


def test_large_pages_are_warned_of(outputs, tmp_path, monkeypatch, capsys):
    study.write(tmp_path / "s.html", outputs)
    assert "MB" not in capsys.readouterr().err
    monkeypatch.setattr(study, "LARGE", 20_000)
    study.write(tmp_path / "s.html", outputs)
    assert "MB, which is much" in capsys.readouterr().err


@pytest.mark.parametrize(("methods", "keys", "trials"), [(2, 9, 5), (3, 7, 12), (5, 12, 60), (4, 6, 35), (6, 1, 7)])
def test_a_part_of_the_meetings_is_balanced(methods, keys, trials):
    drawn = study._draw(methods, keys, trials, random.Random(1))
    assert len(drawn) == len(set(drawn)) == trials
    counts = [Counter(trial[1:] for trial in drawn)[pair] for pair in itertools.combinations(range(methods), 2)]
    assert max(counts) - min(counts) <= 1
    counts = [Counter(key for key, *_ in drawn)[key] for key in range(keys)]
    assert max(counts) - min(counts) <= 1
    assert drawn == study._draw(methods, keys, trials, random.Random(1))
    assert trials in (5, 60, 7) or drawn != study._draw(methods, keys, trials, random.Random(2))


# ---- the page in a browser -------------------------------------------------------------------------------


@pytest.fixture
def rating(browser, outputs, tmp_path):
    """Return the browser with a study open, empty-handed; check in the end that the page asked for nothing."""
    path = tmp_path / "study.html"
    study.write(path, outputs, styles=outputs["zeta-painter"])
    allow = {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
    (tmp_path / "downloads").mkdir()
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", allow)
    browser.get_log("browser")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    browser.get(path.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    yield browser
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert browser.get_log("browser") == []


def wait(browser, script, *arguments):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 10, 0.02).until(lambda _: browser.execute_script(script, *arguments))


def ready(browser, done):
    """Wait until so many answers are given and the next pictures can be judged."""
    wait(browser, "return document.querySelector('#count').textContent === `${arguments[0]} of 4`"
                  " && (since !== null || arguments[0] === 4)", done)  # fmt: skip


def colours(browser):
    """Return which colours the left and the right picture show on the screen."""
    found = []
    for side in ("left", "right"):
        shot = browser.find_element("css selector", f"#{side}-picture").screenshot_as_png
        picture = Image.open(io.BytesIO(shot)).convert("RGB")
        found.append(picture.getpixel((picture.width // 2, picture.height // 2)))
    return found


def downloaded(tmp_path, number):
    """Return the JSON files that were downloaded, when there are so many."""
    for _ in range(500):
        found = sorted((tmp_path / "downloads").glob("*.json"))
        if len(found) >= number:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{len(found)} downloads after ten seconds")


@pytest.mark.slow
def test_a_rater_works_through_a_study(rating, outputs, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(key):
        ActionChains(rating).send_keys(key).perform()

    ready(rating, 0)
    assert not rating.find_element("id", "undo").is_enabled()
    seen = [colours(rating)]
    press(Keys.ARROW_LEFT)
    ready(rating, 1)
    seen.append(colours(rating))
    rating.find_element("id", "right").click()
    ready(rating, 2)
    press(Keys.BACKSPACE)
    ready(rating, 1)
    assert colours(rating) == seen[1], "the same again"
    press(Keys.ARROW_RIGHT)
    ready(rating, 2)
    seen.append(colours(rating))
    for visible in (rating.find_element("tag name", "body").text, rating.page_source):
        assert not [word for word in (*METHODS, "photo-") if word in visible]
    rating.refresh()
    ready(rating, 2)
    assert colours(rating) == seen[2], "goes on where it was"
    assert rating.find_element("id", "progress").get_property("value") == 2

    rating.find_element("id", "save-now").click()
    (part,) = downloaded(tmp_path, 1)
    assert len(study.read_results([part])[0]["answers"]) == 2
    part = part.rename(tmp_path / "part.json")

    press(Keys.SPACE)  # after a click on a button, which must not take it
    ready(rating, 3)
    seen.append(colours(rating))
    rating.find_element("id", "left-picture").click()
    ready(rating, 4)
    assert rating.find_element("id", "end").is_displayed() and not rating.find_element("id", "trial").is_displayed()
    assert not rating.find_element("id", "anew").is_enabled(), "nothing is thrown away before it was downloaded"
    press(Keys.ARROW_LEFT)
    rating.find_element("id", "save").click()
    (whole,) = downloaded(tmp_path, 1)
    (result,) = study.read_results([part, whole])
    assert [answer["choice"] for answer in result["answers"]] == ["left", "right", "tie", "left"]
    assert all(0 <= answer["ms"] < 60_000 for answer in result["answers"])
    assert result["study"] == embedded(tmp_path / "study.html")["study"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", result["started"])
    for answer, shown in zip(result["answers"], seen):
        for side, colour in zip(("left", "right"), shown):
            expected = Image.open(outputs[answer[side]][answer["key"]]).getpixel((0, 0))
            assert np.abs(np.subtract(colour, expected)).max() <= 4, "what is told is what was shown"
    scored = study.score([result])
    assert (scored["raters"], scored["answers"], scored["pairs"][0]["ties"]) == (1, 4, 1)
    wins = Counter(answer[answer["choice"]] for answer in result["answers"] if answer["choice"] != "tie")
    assert {each["name"]: each["wins"] for each in scored["methods"]} == {name: wins[name] for name in METHODS}

    rating.find_element("id", "anew").click()
    ready(rating, 0)
    assert rating.execute_script("return state.rater") != result["rater"]


def test_a_button_reached_by_tab_takes_the_space_bar(rating):
    from selenium.webdriver.common.keys import Keys

    ready(rating, 0)
    rating.execute_script("document.querySelector('#right').focus()")
    rating.switch_to.active_element.send_keys(Keys.SPACE)
    ready(rating, 1)
    assert rating.execute_script("return state.answers[0][0]") == "right"


def test_order_and_sides_differ_among_raters_and_are_even(rating):
    script = """
        const raters = [...Array(400).keys()].map(i => Math.imul(i + 1, 2654435761) >>> 0)
            .map(word => word.toString(16).padStart(8, "0") + "00000000");
        const orders = raters.map(rater => arrange(rater).map(trial => [trial.key, trial.sides[0]]));
        return [orders, raters.every(rater => JSON.stringify(arrange(rater)) === JSON.stringify(arrange(rater)))];"""
    orders, same = rating.execute_script(script)
    assert same
    orders = np.array(orders)  # (rater, trial, [key, which method is on the left])
    assert (np.sort(orders[:, :, 0], axis=1) == range(4)).all()
    for key in range(4):
        where = (orders[:, :, 0] == key).mean(0)
        assert np.abs(where - 0.25).max() < 0.09, "four standard deviations"
    assert abs(orders[:, :, 1].mean() - 0.5) < 0.05
    assert len({tuple(map(tuple, order)) for order in orders}) > 200


def test_a_page_that_can_keep_nothing_says_so_and_damaged_progress_is_passed_over(rating):
    rating.execute_script("localStorage.setItem(place, '{\"rater\": 3')")
    rating.refresh()
    ready(rating, 0)
    rating.execute_script("Storage.prototype.setItem = () => { throw new Error('full'); }; answer('left');")
    ready(rating, 1)
    assert "keeps nothing" in rating.find_element("id", "kept").text


@pytest.mark.parametrize(("width", "height"), [(400, 800), (1200, 800)])
def test_fits_the_screen(rating, width, height):
    rating.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    ready(rating, 0)
    assert rating.execute_script("return document.documentElement.scrollWidth") <= width
    assert rating.execute_script("return document.querySelector('#choices').getBoundingClientRect().bottom") <= height


# ---- the files of answers --------------------------------------------------------------------------------


def answered(outcomes, rater="r"):
    """Return the result of a rater who answered (left, right, choice)."""
    answers = [{"key": "k", "left": a, "right": b, "choice": choice, "ms": 1} for a, b, choice in outcomes]
    return {"styletools": "study", "study": "s", "rater": rater, "started": "", "answers": answers}


def saved(folder, name, result):
    (folder / name).write_text(json.dumps(result))
    return folder / name


def test_the_longer_file_of_a_rater_counts(tmp_path):
    short, whole = answered([("a", "b", "left")]), answered([("a", "b", "left"), ("b", "a", "tie")])
    other = answered([("a", "b", "right")], "other")
    paths = [saved(tmp_path, f"{i}.json", each) for i, each in enumerate([short, whole, other, short])]
    assert study.read_results(paths) == [whole, other]


def damaged():
    yield "no dictionary", []
    for name in ("styletools", "study", "rater", "answers"):
        yield f"no {name}", {key: value for key, value in answered([]).items() if key != name}
    yield "something else", answered([]) | {"styletools": "model"}
    yield "no answer", answered([]) | {"answers": ["left"]}
    yield "a choice that is none", answered([("a", "b", "middle")])
    yield "a method against itself", answered([("a", "a", "left")])
    for name in ("key", "left", "right"):
        result = copy.deepcopy(answered([("a", "b", "left")]))
        result["answers"][0][name] = 3
        yield f"a number for {name}", result


@pytest.mark.parametrize("result", [pytest.param(result, id=name) for name, result in damaged()])
def test_what_is_no_result(result, tmp_path):
    with pytest.raises(errors.DataError, match="x.json: is no result of a study"):
        study.read_results([saved(tmp_path, "x.json", result)])


def test_what_is_no_file_of_ours(tmp_path):
    with pytest.raises(errors.MissingInput, match="gone.json"):
        study.read_results([tmp_path / "gone.json"])
    for data in (b"", b"\xff\xfe\x00", b"[" * 100_000, b"PNG"):
        (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(errors.DataError, match="x.json"):
            study.read_results([tmp_path / "x.json"])
    first = saved(tmp_path, "a.json", answered([]))
    with pytest.raises(errors.DoesNotFit, match="b.json: is of another study than .*a.json"):
        study.read_results([first, saved(tmp_path, "b.json", answered([]) | {"study": "t"})])


# ---- what the answers say --------------------------------------------------------------------------------


def simulated(strengths, raters, answers, rng, ties=0.0):
    """Return the results of raters who choose as Bradley and Terry say, and sometimes cannot."""
    names, results = list(strengths), []
    for rater in range(raters):
        outcomes = []
        for _ in range(answers):
            a, b = rng.permutation(names)[:2]
            wins = rng.random() < 1 / (1 + math.exp(strengths[b] - strengths[a]))
            outcomes.append((a, b, "tie" if rng.random() < ties else "left" if wins else "right"))
        results.append(answered(outcomes, f"r{rater}"))
    return results


@pytest.mark.parametrize(("wins", "losses", "ties"), [(30, 10, 0), (3, 9, 8), (5, 0, 0), (0, 0, 4)])
def test_two_methods_have_the_log_odds(wins, losses, ties):
    # A win is told half of the time as the left of (a, b), half as the right of (b, a).
    outcomes = [("a", "b", "left"), ("b", "a", "right")] * wins + [("a", "b", "right"), ("b", "a", "left")] * losses
    told = study.score([answered(outcomes[::2] + [("b", "a", "tie")] * ties)])
    a, b = sorted(told["methods"], key=lambda each: each["name"])
    odds = math.log((wins + ties / 2 + 0.5) / (losses + ties / 2 + 0.5))
    assert a["strength"] == pytest.approx(odds / 2, abs=1e-6) and b["strength"] == pytest.approx(-odds / 2, abs=1e-6)
    assert (a["wins"], a["losses"], a["ties"]) == (wins, losses, ties) == (b["losses"], b["wins"], b["ties"])
    assert a["win_rate"] == pytest.approx((wins + ties / 2) / (wins + losses + ties))
    assert b["win_rate"] == pytest.approx(1 - a["win_rate"])
    assert told["pairs"] == [{"a": "a", "b": "b", "a_wins": wins, "b_wins": losses, "ties": ties}]
    assert a["low"] <= a["strength"] <= a["high"] and a["win_rate_low"] <= a["win_rate"] <= a["win_rate_high"]
    assert math.isfinite(a["low"]) and math.isfinite(a["high"])
    if (wins, losses) == (5, 0):
        assert a["win_rate_low"] <= 0.8, "five answers are no certainty"


def test_strengths_are_where_the_likelihood_is_highest():
    from scipy.optimize import minimize

    rng = np.random.default_rng(3)
    wins = rng.integers(0, 12, (5, 5)) * (1 - np.eye(5))
    wins[4] = 0  # never won
    wins[0, 1] = wins[1, 0] = 0  # never met
    with_prior = wins + (1 - np.eye(5)) * 0.5 / 4

    def loss(strength):
        return (with_prior * np.logaddexp(0, strength[None, :] - strength[:, None])).sum()

    best = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    assert np.abs(study.bradley_terry(wins) - (best - best.mean())).max() < 1e-5
    batch = np.stack([wins, wins.T])
    assert np.allclose(study.bradley_terry(batch)[1], study.bradley_terry(wins.T), atol=1e-7)


@pytest.mark.parametrize("raters", [1, 12])
def test_intervals_hold_the_truth(raters):
    truth = {"a": 0.9, "b": 0.3, "c": -0.2, "d": -1.0}
    rng = np.random.default_rng(0)
    inside, widths = [], []
    for _ in range(60):
        told = study.score(simulated(truth, raters, 240 // raters, rng), resamples=200)
        for each in told["methods"]:
            inside.append(each["low"] <= truth[each["name"]] <= each["high"])
            widths.append(each["high"] - each["low"])
    print(f"{raters} raters: {np.mean(inside):.3f} of intervals hold the truth, median width {np.median(widths):.2f}")
    assert np.mean(inside) > (0.92 if raters == 1 else 0.87), "bootstrap over few raters is known to be a little narrow"
    assert np.mean(inside) < 0.995 and np.median(widths) < 1.0


def test_raters_who_differ_widen_the_intervals():
    rng = np.random.default_rng(1)
    alike = simulated({"a": 0.0, "b": 0.0}, 10, 40, rng)
    apart = [each for sign in (3, -3) for each in simulated({"a": sign, "b": 0.0}, 5, 40, rng)]
    width = {}
    for name, results in (("alike", alike), ("apart", apart)):
        first = study.score(results)["methods"][0]
        width[name] = first["win_rate_high"] - first["win_rate_low"]
    assert width["apart"] > 3 * width["alike"]


def test_what_is_counted():
    one = answered([("a", "b", "left"), ("b", "c", "tie")], "one")
    told = study.score([one, answered([("c", "a", "right")], "two"), answered([], "three")])
    assert (told["studies"], told["raters"], told["answers"]) == (1, 2, 3)
    assert [each["name"] for each in told["methods"]][0] == "a"
    assert sum(each["strength"] for each in told["methods"]) == pytest.approx(0, abs=1e-9)
    assert told["pairs"][1] == {"a": "a", "b": "c", "a_wins": 1, "b_wins": 0, "ties": 0}
    assert told == study.score([one, answered([("c", "a", "right")], "two")]) and json.dumps(told, allow_nan=False)
    with pytest.raises(errors.DataError, match="no answers"):
        study.score([answered([])])


@pytest.mark.parametrize("raters", [2, 6])
def test_methods_that_never_met_stay_finite(raters):
    results = [answered([("a", "b", "left")] * 30 + [("c", "d", "right")] * 30, f"r{i}") for i in range(raters)]
    start = time.perf_counter()
    told = study.score(results)
    assert time.perf_counter() - start < 30
    assert np.isfinite([[each["strength"], each["low"], each["high"]] for each in told["methods"]]).all()
    assert {each["name"] for each in told["methods"][:2]} == {"a", "d"} and len(told["pairs"]) == 2
