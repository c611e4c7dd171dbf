"""Headers that claim too much: refused before memory is taken, in every format."""

import io
import json
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest
from stream_samples import encode, picture, until_error

from styletools import streams


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def jpeg(width, height):
    data = encode("jpeg", [picture()])[0]
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def safetensors(size):
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header


def npy(*shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def flo(width, height):
    return b"PIEH" + struct.pack("<ii", width, height)


def npz(*shape):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(*shape))
    return out.getvalue()


def zip_bomb():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(60 << 20) + bytes(60 << 20))
    return out.getvalue()


def tar(size):
    header = tarfile.TarInfo("x.ppm")
    header.size = size
    return header.tobuf() + b"P6 30000 30000 255\n"


def tiff(width, height):
    data = bytearray(encode("tiff", [picture()])[0])
    assert data[:2] == b"II"
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag = struct.unpack_from("<H", data, entry)[0]
        if tag in (256, 257):
            struct.pack_into("<HII", data, entry + 2, 4, 1, width if tag == 256 else height)
    return bytes(data)


def gif(width, height):
    data = bytearray(encode("gif", [picture()])[0])
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp(width, height):
    data = bytearray(encode("bmp", [picture()])[0])
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp(width, height):
    data = bytearray(encode("webp", [picture(channels=4)])[0])
    if data[12:16] == b"VP8X":
        data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def jp2(width, height):
    data = bytearray(encode("jp2", [picture()])[0])
    place = data.index(b"ihdr") + 4
    data[place : place + 8] = struct.pack(">II", height, width)
    size = data.index(b"\xff\x4f\xff\x51") + 8
    data[size : size + 8] = struct.pack(">II", width, height)
    return bytes(data)


TEN_GIGAPIXELS = {
    "ppm": b"P6 100000 100000 255\n",
    "pgm": b"P5\n100000 100000\n255\n",
    "pbm": b"P4 100000 100000\n",
    "plain": b"P3 100000 100000 255\n1 2 3 ",
    "pam": b"P7\nWIDTH 100000\nHEIGHT 100000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n",
    "y4m": b"YUV4MPEG2 W100000 H100000 F25:1\nFRAME\n",
    "png": png(100_000, 100_000),
    "jpeg": jpeg(65_500, 65_500),
    "tiff": tiff(100_000, 100_000),
    "gif": gif(65_535, 65_535),
    "bmp": bmp(100_000, 100_000),
    "webp": webp(100_000, 40_000),
    "jp2": jp2(100_000, 100_000),
    "npy": npy(100_000, 100_000, 3),
    "flo": flo(100_000, 100_000),
    "npz": npz(100_000, 100_000, 3),
    "safetensors": safetensors(30_000_000_000),
    "rgb24:100000x100000": b"abc",
    "tar": tar(10_000_000_000),
}
# Within the limits, and not true: what is there must decide how much memory is taken.
PERMITTED = {
    "ppm": b"P6 20000 20000 255\nabc",
    "ppm16": b"P6 15000 15000 65535\nabc",
    "plain": b"P3 20000 20000 255\n1 2 3 ",
    "pam": b"P7\nWIDTH 20000\nHEIGHT 20000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\nabc",
    "y4m": b"YUV4MPEG2 W20000 H20000 F25:1\nFRAME\nabc",
    "png": png(20_000, 20_000),
    "npy": npy(20_000, 20_000, 3),
    "flo": flo(20_000, 20_000),
    "npz": npz(20_000, 20_000, 3),
    "safetensors": safetensors(1_000_000_000),
    "long header": (99_000_000).to_bytes(8, "little") + b'{"x":',
    "rgb24:20000x20000": b"abc",
    "tar": tar(2_000_000_000),
    "long chunk": png(10, 10) + struct.pack(">I", 0x7FFFFFFF) + b"IDATabc",
}


def peak(data, name, **options):
    form = name if ":" in name else None
    tracemalloc.start()
    try:
        found, message = until_error(data, format=form, **options)
        return found, message, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", TEN_GIGAPIXELS)
def test_ten_gigapixels_are_refused_before_memory_is_taken(name):
    found, message, used = peak(TEN_GIGAPIXELS[name], name)
    if name == "tar":
        (bad,) = found
        assert isinstance(bad, streams.Bad) and "over the limit" in str(bad.error)
    else:
        assert not found and message
    assert used < 8 << 20


def test_the_limit_is_named():
    for name in ("ppm", "pam", "y4m", "png", "jpeg", "gif", "bmp", "tiff"):
        _, message = until_error(TEN_GIGAPIXELS[name])
        assert "over the limit" in message or "damaged" in message, (name, message)


@pytest.mark.parametrize("name", PERMITTED)
def test_a_short_file_with_a_huge_header_takes_little_memory(name):
    found, message, used = peak(PERMITTED[name], name)
    assert not found or isinstance(found[0], streams.Bad)
    assert message or found
    assert used < 64 << 20


def test_a_zip_bomb_is_refused_by_its_directory():
    data = zip_bomb()
    found, message, used = peak(data, "npz", limits=streams.Limits(max_bytes=30 << 20))
    assert not found and "limit" in message and used < 8 << 20


def test_a_png_that_inflates_to_more_than_its_header_says():
    rows = (b"\0" + bytes(30)) * 10
    whole = png(10, 10) + chunk(b"IDAT", zlib.compress(rows + bytes(50 << 20))) + chunk(b"IEND", b"")
    found, message, used = peak(whole, "png")
    assert used < 8 << 20
    assert message or found[0].array.shape == (10, 10, 3)


def test_limits_are_the_callers():
    data = encode("png", [picture(100, 100)])[0]
    assert until_error(data, limits=streams.Limits(max_pixels=10_000))[1] is None
    assert "9999" in until_error(data, limits=streams.Limits(max_pixels=9_999))[1]
    endless = data[:-12] + chunk(b"tEXt", bytes(100_000)) * 3
    assert "limit" in until_error(endless, limits=streams.Limits(max_bytes=200_000))[1]
