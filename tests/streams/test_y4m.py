"""YUV4MPEG2, against ffmpeg."""

import numpy as np
import pytest
from stream_samples import decode, encode, noise, picture, until_error

from styletools import errors, streams

EXACT = "flags=accurate_rnd+full_chroma_int+full_chroma_inp+bilinear"


def video(ffmpeg, form, levels="tv", size="66x42"):
    """Moving smooth colours as y4m."""
    return ffmpeg(
        "-f",
        "lavfi",
        "-i",
        f"gradients=size={size}:rate=30000/1001:duration=0.2:seed=3:speed=0.1:nb_colors=4",
        "-vf",
        f"scale=out_range={levels}:{EXACT},format={form}",
        "-color_range",
        levels,
        "-strict",
        "-1",
        "-f",
        "yuv4mpegpipe",
        "-",
    )


@pytest.mark.parametrize("size", ["66x42", "67x43", "1x1"])
@pytest.mark.parametrize("levels", ["tv", "pc"])
@pytest.mark.parametrize("form", ["yuv444p", "yuv420p", "gray"])
def test_colours_are_those_of_ffmpeg(ffmpeg, form, levels, size):
    data = video(ffmpeg, form, levels, "66x42") if size == "1x1" else video(ffmpeg, form, levels, size)
    if size == "1x1":
        width, height = 1, 1
        head = data.partition(b"\n")[0].replace(b"W66 H42", b"W1 H1")
        data = head + b"\nFRAME\n" + {"yuv444p": b"\x80\x60\xa0", "yuv420p": b"\x80\x60\xa0", "gray": b"\x80"}[form]
    else:
        width, height = map(int, size.split("x"))
    found = decode(data, stream=True)
    bare = ffmpeg(
        "-f", "yuv4mpegpipe", "-i", "-", "-vf", f"scale={EXACT}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-", data=data
    )
    theirs = np.frombuffer(bare, np.uint8).reshape(-1, height, width, 3).astype(int)
    ours = np.array([streams.to_rgb(record)[0] for record in found]).astype(int)
    assert ours.shape == theirs.shape
    assert found[0].meta["range"] == ("full" if levels == "pc" or form == "gray" else "limited")
    if form == "yuv420p" and (width % 2 or height % 2) and width > 1:
        # ffmpeg stretches 34 chroma samples over 67 pixels; each belongs to two pixels, and the last to one.
        assert np.abs(ours - theirs).mean() < 3
    else:
        assert np.abs(ours - theirs).max() <= 3
        assert np.abs(ours - theirs).mean() < 1


@pytest.mark.parametrize("levels", ["limited", "full"])
@pytest.mark.parametrize("chroma", ["444", "420jpeg", "420mpeg2", "420paldv", "mono"])
@pytest.mark.parametrize("size", [(42, 66), (43, 67), (1, 1), (1, 2), (2, 1)])
def test_ffmpeg_sees_the_colours_that_were_written(ffmpeg, chroma, levels, size):
    wanted = [picture(*size, channels=1 if chroma == "mono" else 3, phase=n) for n in range(2)]
    for record in wanted:
        record.meta = {"chroma": chroma, "range": levels}
    data, _ = encode("y4m", wanted)
    assert f" C{chroma} ".encode() in data[:100]
    bare = ffmpeg(
        "-f", "yuv4mpegpipe", "-i", "-", "-vf", f"scale={EXACT}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-", data=data
    )
    theirs = np.frombuffer(bare, np.uint8).reshape(2, *size, 3).astype(int)
    for have, record, want in zip(theirs, decode(data), wanted, strict=True):
        original = streams.to_rgb(want)[0].astype(int)
        assert np.abs(streams.to_rgb(record)[0].astype(int) - original).mean() < (4 if "420" in chroma else 1)
        assert np.abs(have - original).mean() < (4 if "420" in chroma else 1)
        # ffmpeg takes every 4:2:0 sample for a centred one, and stretches odd sizes.
        apart = 1 if chroma in ("444", "mono", "420jpeg") and not (size[0] % 2 or size[1] % 2) else 4
        assert np.abs(have - streams.to_rgb(record)[0]).mean() < apart


@pytest.mark.parametrize("levels", ["limited", "full"])
def test_full_chroma_keeps_every_colour_within_two_levels(levels):
    wanted = noise(64, 64)
    wanted.meta = {"chroma": "444", "range": levels}
    (record,) = decode(encode("y4m", [wanted])[0])
    assert np.abs(record.array.astype(int) - wanted.array).max() <= 2


def test_conversion_is_exact_to_one_level():
    rng = np.random.default_rng(0)
    planes = rng.integers(16, 236, (3, 32, 32)).astype(np.uint8)
    (record,) = decode(b"YUV4MPEG2 W32 H32 F25:1 C444\nFRAME\n" + planes.tobytes())
    y, blue, red = planes.astype(float)
    y, blue, red = (y - 16) / 219, (blue - 128) / 224, (red - 128) / 224
    want = np.stack(
        [y + 1.402 * red, y - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587, y + 1.772 * blue], axis=2
    )
    assert np.abs(record.array - np.clip(want * 255, 0, 255)).max() <= 1


def test_chroma_lies_where_the_tag_says():
    """A red step between two chroma samples, seen through each of the three placements."""
    luma, blue = np.full((4, 8), 128, np.uint8), np.full((2, 4), 128, np.uint8)
    red = np.array([[100, 100, 160, 160]] * 2, np.uint8)
    shown = {}
    for chroma in ("420jpeg", "420mpeg2"):
        data = f"YUV4MPEG2 W8 H4 F25:1 C{chroma}\nFRAME\n".encode() + luma.tobytes() + blue.tobytes() + red.tobytes()
        shown[chroma] = decode(data)[0].array[0, :, 0].astype(float)
    low, high = shown["420jpeg"][0], shown["420jpeg"][-1]
    assert (shown["420jpeg"][2:6] - low) / (high - low) == pytest.approx([0, 0.25, 0.75, 1], abs=0.02)
    assert (shown["420mpeg2"][2:6] - low) / (high - low) == pytest.approx([0, 0.5, 1, 1], abs=0.02)


def test_what_goes_out_comes_in_again_for_every_placement():
    wanted = picture(42, 66)
    for chroma in ("420jpeg", "420mpeg2", "420paldv"):
        wanted.meta = {"chroma": chroma}
        (record,) = decode(encode("y4m", [wanted])[0])
        inner = np.abs(record.array.astype(int) - wanted.array)[2:-2, 2:-2]
        assert inner.max() <= 12 and inner.mean() < 1.5, chroma


def test_the_header_passes_through(ffmpeg):
    data = video(ffmpeg, "yuv420p", "pc")
    found = decode(data)
    assert len(found) == 6
    assert found[0].meta == {
        "rate": "30000:1001",
        "aspect": "1:1",
        "interlace": "p",
        "range": "full",
        "chroma": "420jpeg",
        "format": "y4m",
    }
    again, _ = encode("y4m", found)
    assert again.partition(b"\n")[0] == data.partition(b"\n")[0].replace(b" XYSCSS=420JPEG", b"")
    assert decode(again)[5].meta == found[5].meta


@pytest.mark.parametrize(
    "rate,word", [("25", "25:1"), ("29.97", "2997:100"), ("30000/1001", "30000:1001"), ("24000:1001", "24000:1001")]
)
def test_the_rate_is_an_option(rate, word):
    assert f" F{word} ".encode() in encode("y4m", [picture()], rate=rate)[0]
    for wrong in ("x", "0", "-1", "1:0"):
        with pytest.raises(errors.UsageError, match="rate"):
            encode("y4m", [picture()], rate=wrong)
        record = picture()
        record.meta = {"rate": wrong}
        assert b" F25:1 " in encode("y4m", [record])[0][:60]


def test_defaults_and_changes_of_channels():
    assert encode("y4m", [picture()])[0].startswith(b"YUV4MPEG2 W27 H19 F25:1 Ip A1:1 C420jpeg\nFRAME\n")
    colour = picture()
    colour.meta = {"chroma": "mono"}
    assert b"C420jpeg" in encode("y4m", [colour])[0][:60]
    data, _ = encode("y4m", [picture(), picture(channels=1)])
    assert [record.array.shape for record in decode(data)] == [(19, 27, 3)] * 2
    with pytest.raises(errors.DataError, match="20x20.*27x19"):
        encode("y4m", [picture(), picture(20, 20)])


@pytest.mark.parametrize(
    "chroma,flag",
    [("422", "yuv420p"), ("411", "yuv420p"), ("420p10", "yuv420p"), ("444p12", "yuv444p"), ("444alpha", "yuv444p")],
)
def test_other_chroma_is_refused_with_the_flag_that_helps(chroma, flag):
    found, message = until_error(f"YUV4MPEG2 W2 H2 F25:1 C{chroma}\nFRAME\n".encode() + bytes(99))
    assert not found and f"-pix_fmt {flag}" in message


@pytest.mark.parametrize("head", ["W2 F25:1", "W0 H2", "Wx H2", "H2", "W2 H2 " + "X" * 5000])
def test_damage(head):
    found, message = until_error(f"YUV4MPEG2 {head}\nFRAME\n".encode() + bytes(99))
    assert not found and message


def test_frame_parameters_are_passed_over():
    frame = bytes([128] * 6)
    found, message = until_error(b"YUV4MPEG2 W2 H2\nFRAME Ip\n" + frame + b"FRAME\n" + frame + b"FRAMX\n" + frame)
    assert len(found) == 2 and "2 frames" in message
