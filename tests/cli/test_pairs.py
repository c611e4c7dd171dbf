"""What is compared with what: never by the order of names, and never silently less than all."""

import pytest

from styletools import errors
from styletools.cli import _pairs
from styletools.cli._pairs import Pair


@pytest.fixture
def touch(folder):
    def make(*names):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()

    return make


def test_names_tell_whatever_the_extension_and_the_order(touch):
    touch("o/b.png", "o/deep/a.png", "c/b.jpg", "c/deep/a.webp", "s/b.tif", "s/deep/a.png")
    assert _pairs.by_name("o", "c", "s") == [
        Pair("o/b.png", "c/b.jpg", "s/b.tif"), Pair("o/deep/a.png", "c/deep/a.webp", "s/deep/a.png"),
    ]  # fmt: skip
    assert _pairs.by_name("o", "c", "") == [Pair("o/b.png", "c/b.jpg"), Pair("o/deep/a.png", "c/deep/a.webp")]


def test_one_picture_serves_for_all(touch):
    touch("o/a.png", "o/b.png", "c/a.jpg", "c/b.jpg", "wave.jpg", "out.png", "in.jpg")
    assert {pair.style for pair in _pairs.by_name("o", "c", "wave.jpg")} == {"wave.jpg"}
    assert [pair.content for pair in _pairs.by_name("o", "in.jpg", "")] == ["in.jpg", "in.jpg"]
    assert _pairs.by_name("out.png", "in.jpg", "wave.jpg") == [Pair("out.png", "in.jpg", "wave.jpg")]
    assert _pairs.by_name("o/a.png", "c", "") == [Pair("o/a.png", "c/a.jpg")]


def test_frames_come_in_the_order_of_their_numbers(touch):
    touch("o/f-10.png", "o/f-9.png", "c/f-9.png", "c/f-10.png")
    assert [pair.output for pair in _pairs.by_name("o", "c", "")] == ["o/f-9.png", "o/f-10.png"]


def test_names_without_a_partner_are_listed_whichever_side_they_are_on(touch):
    touch("o/a.png", "o/x.png", "c/a.jpg", "c/y.jpg")
    with pytest.raises(errors.MissingInput, match=r"no partner of that name for c/y.jpg, o/x.png$"):
        _pairs.by_name("o", "c", "")
    said = []
    assert _pairs.by_name("o", "c", "", said.append) == [Pair("o/a.png", "c/a.jpg")]
    assert said == ["no partner of that name for c/y.jpg, o/x.png"]
    touch(*(f"o/{i}.png" for i in range(30)))
    with pytest.raises(errors.MissingInput, match=r"and 22 more \(32 in all\)"):
        _pairs.by_name("o", "c", "")


def test_nothing_is_left_is_an_error_even_of_partial_pairs(touch):
    touch("o/a.png", "c/b.jpg")
    with pytest.raises(errors.MissingInput):
        _pairs.by_name("o", "c", "", lambda message: None)


def test_two_files_of_one_name_do_not_tell(touch):
    touch("o/a.png", "c/a.jpg", "c/a.png")
    with pytest.raises(errors.UsageError, match=r"c/a.jpg and c/a.png have one name"):
        _pairs.by_name("o", "c", "")


def test_every_content_in_every_style(touch):
    touch("o/a_wave.png", "o/b_wave.png", "o/a_cubes.png", "o/b_cubes.jpg", "c/a.jpg", "c/b.jpg", "s/wave.jpg")
    touch("s/cubes.png")
    assert set(_pairs.product("o", "c", "s")) == {
        Pair("o/a_wave.png", "c/a.jpg", "s/wave.jpg"), Pair("o/a_cubes.png", "c/a.jpg", "s/cubes.png"),
        Pair("o/b_wave.png", "c/b.jpg", "s/wave.jpg"), Pair("o/b_cubes.jpg", "c/b.jpg", "s/cubes.png"),
    }  # fmt: skip
    touch("p/wave/a.png", "p/wave/b.png", "p/cubes/a.png", "p/cubes/b.png")
    assert len(_pairs.product("p", "c", "s", "{style}/{content}")) == 4
    touch("o/odd.png")
    with pytest.raises(errors.MissingInput, match="for o/odd.png"):
        _pairs.product("o", "c", "s")


@pytest.mark.parametrize("name", ["", "{content}", "{style}", "{content}_{other}_{style}"])
def test_a_template_names_both(name):
    with pytest.raises(errors.UsageError, match="--name"):
        _pairs.check_template(name)


def test_a_table_tells(touch, folder):
    touch("t/o/1.png", "t/c/a.jpg", "t/s/b c.jpg", "r/1.png")
    (folder / "t/pairs.tsv").write_text("style\toutput\tcontent\ns/b c.jpg\to/1.png\tc/a.jpg\n\n")
    assert _pairs.from_table("t/pairs.tsv", {}) == [Pair("t/o/1.png", "t/c/a.jpg", "t/s/b c.jpg")]
    (folder / "t/pairs.tsv").write_text("content\toutput\nc/a.jpg\t1.png\n")
    assert _pairs.from_table("t/pairs.tsv", {"output": "r"}) == [Pair("r/1.png", "t/c/a.jpg")]


@pytest.mark.parametrize(
    "text, error, message",
    [
        ("", errors.DataError, "first line must name the columns"),
        ("a.png\tb.png\n", errors.DataError, "first line must name the columns"),
        ("output\toutput\n", errors.DataError, "first line must name the columns"),
        ("content\tstyle\na.png\tb.png\n", errors.DataError, "has no column output"),
        ("output\tcontent\na.png\n", errors.DataError, "line 2 has 1 columns, not 2"),
        ("output\tcontent\na.png\tgone.png\n", errors.MissingInput, "gone.png not there"),
        ("output\tcontent\n", errors.DataError, "names no pairs"),
        ("output\tcontent\n\ta.png\n", errors.DataError, "line 2 names no output"),
        (b"output\tcontent\n\xff\xfe\t\n", errors.DataError, "not a table of text"),
    ],
)
def test_what_is_no_table_of_pairs(touch, folder, text, error, message):
    touch("a.png", "b.png")
    (folder / "pairs.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match=message):
        _pairs.from_table("pairs.tsv", {})
