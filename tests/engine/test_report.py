"""The report of an evaluation: what is in the page, and what a reader can do with it."""

import base64
import io
import json
import re
import statistics

import numpy as np
import pytest
from PIL import Image

from styletools import errors, streams
from styletools.engine import report

METRICS = [
    {"key": "lpips:vgg16", "title": "Perceptual distance", "better": "lower", "range": "0 to 1", "scope": "pair"},
    {"key": "ssim", "title": "Structural similarity", "better": "higher", "range": "-1 to 1", "scope": "pair"},
    {"key": "fd:slim", "title": "Fréchet distance", "better": "lower", "range": "0 and more", "scope": "set"},
]
HOSTILE = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>\"'&amp;\u2028é\udce9.png"
COLOURS = {"content": (220, 30, 30), "style": (30, 160, 30), "output": (30, 30, 220)}


def evaluation(count=20, seed=0):
    """Return the data of a report: `count` measured pairs, five contents, and as many of a control."""
    rng = np.random.default_rng(seed)
    pairs = []
    for name in ("measured", "identity"):
        for i in range(count):
            scores = {"lpips:vgg16": float(rng.random()), "lpips:vgg16.relu1_2": float(rng.random())}
            content = f"in/content/{i % 5}.png"
            output = content if name == "identity" else f"out/{i:04}.png"
            pairs.append({"set": name, "output": output, "content": content, "style": "in/style.png",
                          "scores": scores | {"ssim": float(rng.random()) if name == "measured" else 1.0}})  # fmt: skip
    pairs[min(2, count - 1)]["scores"]["ssim"] = None
    sets = [
        {"name": name, "control": name == "identity", "pairs": count, "seconds": None, "peak_mb": None,
         "scores": {"lpips:vgg16": 0.5, "ssim": ssim, "fd:slim": 12.5}, "std": {"lpips:vgg16": 0.1}}
        for name, ssim in [("measured", 0.4), ("identity", 1.0)]
    ]  # fmt: skip
    return {
        "title": "A title", "command": "st-eval -o out/", "created": "2026-01-02T03:04:05+00:00", "version": "1.2.3",
        "model": "live", "note": "", "metrics": METRICS, "sets": sets, "pairs": pairs,
    }  # fmt: skip


def picture(pair, role):
    """Return a picture of one colour, which tells the role, and of outputs a little which it is."""
    number = int(pair["output"][4:8]) if role == "output" and pair["output"].startswith("out/") else 0
    return streams.Image(np.full((600, 900, 3), np.array(COLOURS[role]) + number, np.uint8))


def embedded(page: bytes) -> dict:
    """Return the data that a page holds."""
    return json.loads(re.search(rb'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def written(data, **options) -> bytes:
    out = io.BytesIO()
    assert report.write(out, data, picture, **options) == len(out.getvalue())
    return out.getvalue()


# ---- the page as a file ----------------------------------------------------------------------------------


def test_only_the_best_and_worst_are_embedded_each_once():
    data, asked = evaluation(), []

    def asking(pair, role):
        asked.append((pair["set"], pair["output"], role))
        return picture(pair, role) if role != "style" else None

    out = io.BytesIO()
    report.write(out, data, asking, shown=2)
    told = embedded(out.getvalue())
    measured = [i for i, pair in enumerate(data["pairs"]) if pair["set"] == "measured"]
    by_ssim = sorted((i for i in measured if i != 2), key=lambda i: data["pairs"][i]["scores"]["ssim"])
    by_lpips = sorted(measured, key=lambda i: data["pairs"][i]["scores"]["lpips:vgg16"])
    assert told["ends"]["ssim"] == {"best": by_ssim[:-3:-1], "worst": by_ssim[:2]}
    assert told["ends"]["lpips:vgg16"] == {"best": by_lpips[:2], "worst": by_lpips[:-3:-1]}
    assert set(told["ends"]) == {"ssim", "lpips:vgg16"}, "what scores a set has no best pair"
    shown = {*by_ssim[:2], *by_ssim[-2:], *by_lpips[:2], *by_lpips[-2:]}
    assert len(asked) == 3 * len(shown) and {name for name, *_ in asked} == {"measured"}
    assert len(told["pictures"]) == len(shown) + 1, "all have the same content"
    assert all("style" not in roles for roles in told["seen"].values())
    first = Image.open(io.BytesIO(base64.b64decode(told["pictures"][0]["jpeg"])))
    assert (first.format, first.size) == ("JPEG", (512, 341))


@pytest.mark.parametrize("better", ["lower", "higher", "neither"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_of_few_pairs_none_is_both_best_and_worst(count, better):
    data = evaluation(count) | {"metrics": [METRICS[0] | {"better": better}]}
    ends = embedded(written(data))["ends"]["lpips:vgg16"]
    assert sorted(ends["best"] + ends["worst"]) == list(range(count))
    assert len(ends["best"]) - len(ends["worst"]) in (0, 1)


def test_without_pairs_or_scores():
    data = evaluation(3)
    assert embedded(written(data | {"pairs": []}))["ends"] == {}
    for pair in data["pairs"]:
        pair["scores"] = {"ssim": None}
    assert embedded(written(data))["pictures"] == []


def test_numbers_that_json_has_not():
    data = evaluation(4)
    for i, score in enumerate((float("inf"), float("nan"), -float("inf"), np.float32(0.1))):
        data["pairs"][i]["scores"]["ssim"] = score
    told = embedded(written(data))
    column = told["columns"].index("ssim")
    assert [row[4][column] for row in told["pairs"][:4]] == ["Infinity", None, "-Infinity", 0.1]
    assert told["columns"] == ["lpips:vgg16", "lpips:vgg16.relu1_2", "ssim"]


def test_a_page_of_another_depth_and_with_alpha(tmp_path):
    kinds = {"output": ((40, 30, 4), np.uint16), "content": ((40, 30, 1), np.uint8), "style": ((4, 3, 2), np.uint8)}
    report.write(
        tmp_path / "new/report.html", evaluation(3), lambda _, role: streams.Image(np.zeros(*kinds[role]))
    )  # fmt: skip
    told = embedded((tmp_path / "new/report.html").read_bytes())
    assert {(each["width"], each["height"]) for each in told["pictures"]} == {(30, 40), (3, 4)}
    clear = Image.open(io.BytesIO(base64.b64decode(told["pictures"][told["seen"]["0"]["output"]]["jpeg"])))
    assert clear.getpixel((0, 0)) == (255, 255, 255), "transparent on white paper"


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(errors.CannotCreate, match="is a directory"):
        report.write(tmp_path, evaluation(3), picture)


# ---- the page in a browser -------------------------------------------------------------------------------


@pytest.fixture
def opened(browser, tmp_path):
    """Return what opens the report of some data, and checks in the end that it was quiet and asked for nothing."""

    def open_report(data):
        path = tmp_path / "report.html"
        path.write_bytes(written(data))
        browser.get(path.as_uri())
        return browser

    browser.get_log("browser")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    yield open_report
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert browser.get_log("browser") == []


def texts(browser, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
    return browser.execute_script(script, selector)


def column(browser, key):
    """Return the numbers of the table's column as they stand there."""
    script = "return [...document.querySelectorAll('#all th')].findIndex(e => e.dataset.key === arguments[0])"
    return texts(browser, f"#all tbody td:nth-child({browser.execute_script(script, key) + 1})")


def test_sort_and_filter(opened):
    from selenium.webdriver.common.keys import Keys

    data = evaluation()
    browser = opened(data)
    scores = [pair["scores"]["ssim"] for pair in data["pairs"] if pair["set"] == "measured"]
    came = [f"{s:.3f}" if s is not None else "–" for s in scores]
    assert column(browser, "ssim") == came, "without controls"
    head = browser.find_element("css selector", "#all th[data-key='ssim']")
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    told = sorted(s for s in scores if s is not None)
    assert column(browser, "ssim") == [f"{s:.3f}" for s in told] + ["–"]
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "descending"
    assert column(browser, "ssim") == [f"{s:.3f}" for s in told[::-1]] + ["–"], "what has no score is last all the same"
    assert len(browser.find_elements("css selector", "#all th[aria-sort]")) == 1

    search = browser.find_element("id", "filter")
    search.send_keys(".PNG /001")
    assert sorted(texts(browser, "#all tbody td:nth-child(2)")) == [f"{i:04}.png" for i in range(10, 20)]
    assert "10 of 10, filtered from 20" in browser.find_element("id", "count").text
    search.send_keys("nothing")
    assert texts(browser, "#all tbody tr") == []
    search.clear()
    search.send_keys(" ")
    browser.find_element("id", "controls").click()
    assert len(texts(browser, "#all tbody tr")) == 40
    assert "lpips:vgg16.relu1_2" not in texts(browser, "#all th button")
    browser.find_element("id", "parts").click()
    assert "lpips:vgg16.relu1_2" in texts(browser, "#all th button")


def test_best_and_worst_of_a_chosen_metric(opened):
    from selenium.webdriver.support.select import Select

    data = evaluation()
    browser = opened(data)
    chooser = Select(browser.find_element("id", "metric"))
    assert [option.get_attribute("value") for option in chooser.options] == ["lpips:vgg16", "ssim"]
    measured = [pair for pair in data["pairs"] if pair["set"] == "measured"]
    for key, sign, decimals in [("lpips:vgg16", 1, 4), ("ssim", -1, 3)]:
        chooser.select_by_value(key)
        order = sorted((sign * p["scores"][key], p["output"]) for p in measured if p["scores"][key] is not None)
        told = [f"{name.removeprefix('out/')}{sign * score:.{decimals}f}" for score, name in order]
        assert texts(browser, "#best .pair .line") == told[:6]
        assert texts(browser, "#worst .pair .line") == told[:-7:-1]
    images = browser.find_elements("css selector", "#worst li:first-child img")
    name = order[-1][1]
    content = next(p["content"] for p in measured if p["output"] == name)
    content, name = content.removeprefix("in/content/"), name.removeprefix("out/")
    alts = [f"content: {content}", "style: style.png", f"output: {name}"]
    assert [image.get_attribute("alt") for image in images] == alts
    assert all(image.get_property("naturalWidth") == 512 for image in images)
    browser.find_element("css selector", "#worst li:first-child button").click()
    assert browser.find_element("css selector", "#names strong").text == name
    alts = [image.get_attribute("alt") for image in browser.find_elements("css selector", "#slider img")]
    assert alts == [f"content: {content}", f"output: {name}"]


@pytest.mark.slow
def test_slider(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser = opened(evaluation())
    slider = browser.find_element("id", "slider")

    def seen():
        """Return how much of the width shows the content, as the pixels have it."""
        pixels = np.asarray(Image.open(io.BytesIO(slider.screenshot_as_png)).convert("RGB")).astype(int)
        row = pixels[len(pixels) // 4]
        return round(100 * (row[:, 0] - row[:, 2] > 100).mean())

    def clip():
        return browser.execute_script("return getComputedStyle(document.querySelector('#slider .top')).clipPath")

    assert clip() == "inset(0px 0px 0px 50%)" and abs(seen() - 50) <= 1
    slider.send_keys(Keys.ARROW_LEFT)
    assert clip() == "inset(0px 0px 0px 48%)" and slider.get_attribute("aria-valuenow") == "48"
    slider.send_keys(Keys.HOME)
    assert seen() == 0 and slider.get_attribute("aria-valuenow") == "0"
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.PAGE_UP)
    assert slider.get_attribute("aria-valuenow") == "12" and abs(seen() - 12) <= 1
    slider.send_keys(Keys.END)
    assert seen() >= 99

    width = slider.size["width"]
    quarter = round(-0.25 * width)
    ActionChains(browser).move_to_element_with_offset(slider, quarter, 0).click().move_by_offset(50, 0).perform()
    assert abs(seen() - 25) <= 1, "where it was pressed, and nowhere else once let go"
    # In one chain: between two, chromedriver lets the button go.
    drag = ActionChains(browser).move_to_element_with_offset(slider, quarter, 0).click_and_hold()
    drag.move_by_offset(30, 40).move_by_offset(-2 * quarter - 30, 0).release().move_by_offset(20, 0).perform()
    assert abs(seen() - 75) <= 1

    box = slider.rect
    top = browser.execute_script("return window.scrollY")
    for kind, share in [("touchStart", 0.75), ("touchMove", 0.5), ("touchMove", 0.4), ("touchEnd", None)]:
        points = [] if share is None else [{"x": box["x"] + share * width, "y": box["y"] - top + 60}]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert abs(seen() - 40) <= 1


def test_outputs_that_nothing_is_known_of_but_themselves(opened, monkeypatch):
    whole = picture
    monkeypatch.setitem(globals(), "picture", lambda pair, role: whole(pair, role) if pair[role] else None)
    data = evaluation(12)
    for pair in data["pairs"][:6]:
        pair["content"] = pair["style"] = None
        pair["scores"]["lpips:vgg16"] /= 1000
    browser = opened(data)
    slider = browser.find_element("id", "slider")
    assert len(slider.find_elements("tag name", "img")) == 1 and slider.get_attribute("role") is None
    slider.click()
    browser.find_element("css selector", "#worst button").click()
    assert len(slider.find_elements("tag name", "img")) == 2 and slider.get_attribute("role") == "slider"
    browser.find_element("css selector", "#best button").click()
    assert len(slider.find_elements("tag name", "img")) == 1 and slider.get_attribute("tabindex") is None
    assert "–" in texts(browser, "#all td.path")


def test_numbers_of_sets_and_distributions(opened):
    data = evaluation()
    browser = opened(data)
    rows = [row.split() for row in browser.find_element("id", "sets").text.splitlines()[1:]]
    assert "0.400" in sum(rows, []) and "12.50" in sum(rows, [])
    notes = browser.find_element("id", "set-notes").text
    assert "identity: a control, the photograph itself" in notes and "By ssim it does better than all" in notes
    panels = browser.find_elements("css selector", ".panel")
    assert [panel.get_attribute("data-metric") for panel in panels] == ["lpips:vgg16", "ssim"]
    middles = [
        statistics.median(p["scores"]["lpips:vgg16"] for p in data["pairs"] if p["set"] == name)
        for name in ("measured", "identity")
    ]
    assert [e.text for e in panels[0].find_elements("css selector", ".row .number")] == [f"{m:.4f}" for m in middles]
    label = panels[0].find_element("css selector", "svg").get_attribute("aria-label")
    assert label.startswith("measured: 20 scores from ") and label.endswith(f"median {middles[0]:.4f}")
    assert {"st-eval -o out/", "live", "styletools 1.2.3"} <= set(texts(browser, "#facts dd"))


def test_names_do_no_harm(opened):
    data = evaluation(4) | {"title": HOSTILE, "command": HOSTILE, "note": HOSTILE, "model": HOSTILE}
    for pair in data["pairs"]:
        pair |= {"output": HOSTILE, "content": HOSTILE, "style": HOSTILE}
    for each in [*data["sets"], *data["pairs"]]:
        name = "name" if "name" in each else "set"
        each[name] = HOSTILE + each[name]
    browser = opened(data)
    assert browser.execute_script("return window.hurt") is None
    shown = HOSTILE.replace("\udce9", "\ufffd")
    assert browser.execute_script("return document.querySelector('#note').textContent.toWellFormed()") == shown
    assert len(browser.find_elements("tag name", "script")) == 2
    assert browser.find_elements("css selector", "img[src=x]") == []


def test_thousands_of_pairs_without_pictures(opened, monkeypatch):
    monkeypatch.setitem(globals(), "picture", lambda pair, role: None)
    browser = opened(evaluation(4000))
    assert not browser.find_element("id", "gallery").is_displayed()
    assert len(texts(browser, "#all tbody tr")) == 100
    took = browser.execute_script("""
        const start = performance.now();
        document.querySelector("#controls").click();
        document.querySelector("#all th[data-key='ssim'] button").click();
        document.querySelector("#filter").value = "1";
        document.querySelector("#filter").dispatchEvent(new Event("input"));
        return performance.now() - start;""")
    assert took < 3000
    browser.find_element("id", "next").click()
    assert browser.find_element("id", "count").text.startswith("101–200 of ")
    browser.find_element("id", "previous").click()
    assert browser.find_element("id", "count").text.startswith("1–100 of ")


@pytest.mark.parametrize("width", [400, 1200])
def test_fits_the_screen_in_light_and_dark(opened, width):
    browser = opened(evaluation())
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500})  # fmt: skip
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    papers = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        script = "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
        colours = browser.execute_script(script)
        papers.append([sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert papers[0][0] > 700 > 150 > papers[0][1] and papers[1][0] < 150 < 600 < papers[1][1]
