"""What every stream format must do, tried on each that is there."""

import io
import os
import queue
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_samples import Dribble, decode, encode, picture, until_error

from styletools import errors, streams


def can_write(name):
    """Whether the Pillow that is here has the format."""
    try:
        return bool(encode(name, [picture()])) if streams.kind(name) == "image" else True
    except errors.Unavailable:
        return False


ALL = [name for name in streams.names() if can_write(name)]
PICTURES = [name for name in ALL if streams.kind(name) == "image"]
STREAMING = [name for name in ALL if streams.can_stream(name)]
# Bytes that nothing gives away can neither be recognised nor be damaged.
HEADERLESS = [name for name in PICTURES if streams.sniff(encode(name, [picture()])[0]) is None]
SNIFFED = [name for name in ALL if name not in HEADERLESS]
SMALL = streams.Limits(max_pixels=1 << 20, max_bytes=1 << 22)


def samples(name, count):
    """Records that a format holds, all different."""
    if streams.kind(name) == "tensors":
        return [streams.Tensors({"x": np.arange(12, dtype=np.float32).reshape(2, 3, 2) + n}) for n in range(count)]
    return [
        streams.Image(picture(phase=n / 3).array, name=f"{n:04d}.png" if streams.kind(name) == "container" else "")
        for n in range(count)
    ]


def said(name):
    """What `format` must say to read a format back: nothing, where the bytes say it."""
    return f"{name}:27x19" if name in HEADERLESS else None


def same(record, wanted):
    """Whether a record came through, exactly or as well as lossy formats do."""
    if isinstance(wanted, streams.Tensors):
        (have,) = record.tensors.values()  # some formats have a name of their own for it
        return np.array_equal(have, wanted.tensors["x"])
    have, want = streams.to_rgb(record)[0], streams.to_rgb(wanted)[0]
    if record.array.shape[2] < 3:
        want = (want @ [0.299, 0.587, 0.114])[:, :, None]
    return np.abs(streams.to_8bit(have).astype(float) - want).mean() < 12 and have.shape[:2] == want.shape[:2]


def test_formats_are_found_by_their_files():
    modules = {found.module for found in streams._formats().values()}
    folder = os.path.dirname(streams.__file__)
    assert modules == {name[:-3] for name in os.listdir(folder) if name.endswith(".py") and name[0] != "_"}
    assert {"png", "jpeg", "ppm", "pam", "y4m", "rgb24", "npy", "npz", "safetensors", "tar", "webp", "tiff"} <= set(ALL)
    assert len(ALL) == len(set(ALL))
    for name in ALL:
        assert streams.kind(name) in ("image", "tensors", "container")
        assert streams.extension(name).startswith(".")
    assert streams.names("tensors") == ["flo", "npy", "npz", "safetensors"]
    assert streams.by_extension(".JPG") == "jpeg" and streams.by_extension(".tif") == "tiff"
    assert streams.by_extension(".txt") is None
    assert streams.extension("jpeg") == streams.extension("jpg") == ".jpg"


def test_unknown_formats_are_usage_errors_at_once():
    for attempt in (
        lambda: streams.read(io.BytesIO(b"x"), format="nope"),
        lambda: streams.writer(io.BytesIO(), "nope"),
        lambda: streams.kind("nope"),
    ):
        with pytest.raises(errors.UsageError, match="nope"):
            attempt()


def test_names_are_known_without_numpy_and_pillow():
    program = (
        "import sys; from styletools import streams; streams.names(); streams.by_extension('.png');"
        "streams.kind('raw' and 'rgb24:1x1'); streams.extension('png'); streams.sniff(b'P6 1 1 255 abc');"
        "streams.read(sys.stdin.buffer, format='png');"
        "sys.exit(bool({'numpy', 'PIL', 'torch', 'tarfile', 'zipfile'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


@pytest.mark.parametrize("name", ALL)
def test_round_trip(name):
    (wanted,) = samples(name, 1)
    data, _ = encode(name, [wanted])
    (record,) = decode(data, format=said(name), name="x")
    assert same(record, wanted)
    assert record.index == 0
    if streams.kind(name) != "container":
        assert record.name == "x"
    if streams.kind(name) == "image":
        assert streams.kind(record.meta["format"]) == "image"
        assert record.array.flags.c_contiguous and record.array.dtype in (np.uint8, np.uint16)
    assert isinstance(data, bytes) and (name in HEADERLESS or streams.sniff(data[: streams.HEAD]) is not None)


@pytest.mark.parametrize("name", ALL)
def test_a_name_is_kept_and_said_once_in_errors(name):
    data, _ = encode(name, samples(name, 1))
    _, message = until_error(data[: len(data) // 2], format=said(name), name="some/file")
    assert message is None or message.count("some/file") == 1
    assert message is not None or streams.kind(name) == "container"


@pytest.mark.parametrize("channels,deep", [(c, d) for c in (1, 2, 3, 4) for d in (False, True)])
@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_can_be_written_into_every_format(name, channels, deep, capsys):
    wanted = picture(channels=channels, deep=deep)
    if channels in (2, 4):
        wanted.array[:, :, -1] = np.iinfo(wanted.array.dtype).max
    data, _ = encode(name, [wanted])
    (record,) = decode(data, format=said(name))
    eight = streams.Image(streams.to_8bit(wanted.array))
    assert same(record, eight)
    assert "warning" not in capsys.readouterr().err  # nothing was lost: the alpha is full


@pytest.mark.parametrize("name", ["jpeg", "ppm", "y4m", "rgb24", "bmp"])
def test_alpha_is_laid_over_white_and_that_is_said_once(name, capsys):
    clear = picture(channels=4)
    clear.array[:, :, 3] = 0
    data, _ = encode(name, [clear] if name == "bmp" else [clear, clear])
    record = decode(data, format=said(name))[0]
    assert record.array.shape[2] == 3 and record.array.min() > 250
    assert capsys.readouterr().err.count("alpha") == 1


@pytest.mark.parametrize("name", [n for n in PICTURES if n not in STREAMING] + ["npz"])
def test_a_second_record_into_one_file_cannot_be_created(name):
    with pytest.raises(errors.CannotCreate):
        encode(name, samples(name, 2))


def test_pictures_do_not_go_into_tensor_formats_nor_the_other_way():
    for name in streams.names("tensors"):
        with pytest.raises(errors.CannotCreate):
            encode(name, [picture()])
    for name in PICTURES:
        with pytest.raises(errors.CannotCreate):
            encode(name, samples("npy", 1))


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("count", [2, 1000])
def test_many_records_keep_their_order(name, count):
    wanted = samples(name, count)
    if count > 10 and streams.kind(name) != "tensors":
        wanted = [streams.Image(np.full((2, 2, 3), n % 251, np.uint8), name=f"{n}.png") for n in range(count)]
    data, _ = encode(name, wanted, stream=True)
    form = said(name) and said(name).replace("27x19", "2x2" if count > 10 else "27x19")
    number = -1
    for number, record in enumerate(streams.read(io.BytesIO(data), stream=True, format=form)):
        assert record.index == number
        assert same(record, wanted[number])
        if streams.kind(name) == "container":
            assert record.name == wanted[number].name
    assert number == count - 1


@pytest.mark.parametrize("name", ALL)
def test_a_source_that_gives_single_bytes(name):
    wanted = samples(name, 2 if streams.can_stream(name) else 1)
    data, _ = encode(name, wanted)
    found = decode(Dribble(data), stream=True, format=said(name))
    assert len(found) == len(wanted) and all(map(same, found, wanted))


@pytest.mark.parametrize("name", STREAMING)
def test_a_record_comes_out_of_a_pipe_before_the_next_goes_in(name):
    wanted = samples(name, 3)
    if streams.kind(name) == "image":
        wanted = [streams.Image(record.array[:1, :1].copy()) for record in wanted]  # shorter than what sniffing may see
    data, ends = encode(name, wanted)
    reading, writing = os.pipe()
    found = queue.Queue()

    def read():
        form = said(name) and f"{name}:1x1"
        with os.fdopen(reading, "rb", buffering=0) as source:
            for record in streams.read(source, stream=True, format=form):
                found.put(record)
            found.put(None)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    start = 0
    for number, end in enumerate(ends):
        # In two parts, so that the reader has to wait in the middle of a record too.
        os.write(writing, data[start : (start + end) // 2])
        os.write(writing, data[(start + end) // 2 : end])
        assert found.get(timeout=20).index == number
        start = end
    os.write(writing, data[start:])
    os.close(writing)
    assert found.get(timeout=20) is None
    thread.join(timeout=20)


@pytest.mark.parametrize("name", STREAMING)
def test_every_write_is_flushed(name):
    class Out(io.BytesIO):
        seen = 0

        def flush(self):
            self.seen = self.tell()

    out = Out()
    writer = streams.writer(out, name)
    for record in samples(name, 3):
        writer.write(record)
        assert out.seen == out.tell()


@pytest.mark.parametrize("name", ALL)
def test_a_raw_output_that_takes_a_part_at_a_time(name):
    class Part(io.RawIOBase):
        def __init__(self):
            super().__init__()
            self.got = b""

        def writable(self):
            return True

        def write(self, data):
            self.got += bytes(data[:7])
            return min(len(data), 7)

    out = Part()
    (wanted,) = samples(name, 1)
    with streams.writer(out, name) as writer:
        writer.write(wanted)
    assert same(decode(out.got, format=said(name))[0], wanted)
    assert not out.closed


@pytest.mark.parametrize("name", ALL)
def test_a_cut_off_record(name):
    wanted = samples(name, 3 if streams.can_stream(name) else 1)
    data, ends = encode(name, wanted)
    rng = np.random.default_rng(1)
    cuts = {
        *rng.integers(1, ends[-1], 40).tolist(),
        1,
        *(end - 1 for end in ends),
        *ends[:-1],
        *(e + 1 for e in ends[:-1]),
    }
    for cut in sorted(cuts):
        found, message = until_error(data[:cut], stream=True, format=said(name))
        whole = sum(end <= cut for end in ends)
        if streams.kind(name) == "container":
            # A member is padded: it may be whole before its padding is.
            assert whole <= len(found) <= whole + 1 and message is not None
        elif cut in ends:
            assert len(found) == whole and message is None
        elif streams.can_stream(name):
            assert len(found) == whole and message is not None, cut
        else:
            # The last bytes of some files are padding or an index that decoders do without.
            assert message is not None or (cut > 0.9 * len(data) and same(found[0], wanted[0])), cut


@pytest.mark.parametrize("name", ALL)
def test_empty_input_is_no_record(name):
    assert decode(b"") == []
    assert decode(b"", format=said(name) or name) == []


def test_garbage_is_one_data_error():
    rng = np.random.default_rng(2)
    for data in (b"x", b"\0", b"this is not a picture\n" * 99, b"\0" * 4096, rng.bytes(10_000), b"PK", b"\x89PN"):
        found, message = until_error(data)
        assert found == [] and message


@pytest.mark.parametrize("name", SNIFFED)
def test_other_things_after_a_record(name):
    wanted = samples(name, 1)
    data, _ = encode(name, wanted)
    for tail in (b"something else", encode("png" if name != "png" else "ppm", [picture()])[0]):
        found, message = until_error(data + tail, stream=True)
        if streams.can_stream(name):
            assert len(found) == 1 and message
        else:
            assert len(found) <= 1


@pytest.mark.parametrize("name", [n for n in STREAMING if n not in ("tar",)])
def test_memory_does_not_grow_with_the_stream(name):
    """A thousand records of 100 kB from a source that makes them as they are asked for."""
    if streams.kind(name) == "tensors":
        record = streams.Tensors({"x": np.zeros((125, 100, 2), np.float32)})
    else:
        record = streams.Image(np.tile(np.arange(128, dtype=np.uint8)[:, None, None], (1, 256, 3)))
    data, ends = encode(name, [record, record])
    first, again = data[: ends[0]], data[ends[0] : ends[1]]

    class Endless(io.RawIOBase):
        parts = 0
        left = memoryview(first)

        def readable(self):
            return True

        def readinto(self, room):
            if not self.left and self.parts < 300:
                self.parts += 1
                self.left = memoryview(again)
            size = min(len(room), len(self.left))
            room[:size] = self.left[:size]
            self.left = self.left[size:]
            return size

    form = said(name) and f"{name}:256x128"
    reading = streams.read(Endless(), stream=True, format=form)
    for _ in range(20):
        next(reading)
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        count = sum(1 for _ in reading)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 281
    assert kept - base < 1 << 20
    assert peak - base < 4 << 20


@pytest.mark.parametrize("name", SNIFFED)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_bytes_raise_nothing_but_data_error(name, data):
    valid = bytearray(VALID[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(valid) - 1))
        kind = data.draw(st.sampled_from(["set", "header", "delete", "insert", "cut"]))
        if kind == "set":
            valid[place] = data.draw(st.integers(0, 255))
        elif kind == "header":
            valid[place % 64 % len(valid)] = data.draw(st.integers(0, 255))
        elif kind == "delete":
            del valid[place : place + data.draw(st.integers(1, 20))]
        elif kind == "insert":
            valid[place:place] = data.draw(st.binary(min_size=1, max_size=20))
        else:
            del valid[place:]
        valid = valid or bytearray(b"\0")
    until_error(bytes(valid), limits=SMALL, stream=data.draw(st.booleans()))


VALID = {name: encode(name, samples(name, 2 if streams.can_stream(name) else 1))[0] for name in SNIFFED}


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(SNIFFED), head=st.integers(4, 60), tail=st.binary(max_size=200))
def test_random_bytes_behind_a_true_beginning(name, head, tail):
    until_error(VALID[name][:head] + tail, limits=SMALL)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=600))
def test_random_bytes(data):
    until_error(data, limits=SMALL)


@pytest.mark.parametrize("name", HEADERLESS)
def test_headerless_formats_must_be_told_their_size(name):
    for form in (name, f"{name}:", f"{name}:7", f"{name}:axb", f"{name}:-1x2"):
        with pytest.raises(errors.UsageError, match="WIDTHxHEIGHT"):
            decode(b"abc", format=form)
    found, message = until_error(b"abc", format=f"{name}:100000x100000")
    assert not found and "limit" in message


def test_a_failing_source_is_an_input_error():
    class Broken(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, room):
            raise OSError(5, "Input/output error")

    with pytest.raises(errors.InputOutputError):
        decode(Broken())


def test_a_source_that_does_not_block_is_waited_for():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    data, _ = encode("ppm", [picture()])
    timer = threading.Timer(0.2, lambda: (os.write(writing, data), os.close(writing)))
    timer.start()
    with os.fdopen(reading, "rb", buffering=0) as source:
        assert len(decode(source, stream=True)) == 1
    timer.join()


def test_open_image(tmp_path):
    path = tmp_path / "two.ppm"
    path.write_bytes(encode("ppm", [picture(), picture(5, 5)])[0])
    assert streams.open_image(path).array.shape == (19, 27, 3)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "x.npy").write_bytes(encode("npy", samples("npy", 1))[0])
    for name, error in (
        ("empty.png", errors.DataError),
        ("x.npy", errors.DataError),
        ("none.png", errors.MissingInput),
    ):
        with pytest.raises(error, match=name):
            streams.open_image(tmp_path / name)


def test_depth_and_alpha_helpers():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    eight = streams.to_8bit(every)
    assert np.array_equal(eight, np.round(every / 257).astype(np.uint8))
    assert np.array_equal(streams.to_8bit(streams.to_16bit(eight)), eight)
    colours, alpha = streams.to_rgb(picture(channels=2, deep=True))
    assert colours.shape == (19, 27, 3) and alpha.shape == (19, 27) and colours.dtype == np.uint16
    half = np.array([[[0, 128], [200, 0], [77, 255]]], np.uint8)
    assert streams.flat_rgb(streams.Image(half)).tolist() == [[[127] * 3, [255] * 3, [77] * 3]]
    assert streams.flat_rgb(streams.Image(half[:, :, :1])).tolist() == [[[0] * 3, [200] * 3, [77] * 3]]
    assert streams.over_white(half).ravel().tolist() == [127, 255, 77]
    assert streams.over_white(streams.to_16bit(half)).ravel().tolist() == [127 * 257, 65535, 77 * 257]
