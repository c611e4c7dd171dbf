"""Tar, against GNU tar."""

import io
import shutil
import subprocess
import tarfile
import time

import numpy as np
import pytest
from stream_samples import Dribble, decode, encode, noise, picture, until_error

from styletools import errors, streams

needs_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="needs the tar program")


def archive(members, mode="w", format=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=format) as made:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_600_000_000
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


@needs_tar
@pytest.mark.parametrize("option", ["", "z", "j", "J"])
@pytest.mark.parametrize("kind", ["gnu", "ustar", "pax"])
def test_what_gnu_tar_makes(tmp_path, option, kind):
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    long = "n" * 60 if kind == "ustar" else "n" * 180
    for name, data in {
        "a.png": encode("png", [noise()])[0],
        "ü 画.jpg": encode("jpeg", [picture()])[0],
        f"{long}.ppm": encode("ppm", [picture(), picture()])[0],
        "s.safetensors": encode("safetensors", [streams.Tensors({"x": np.ones(3)})])[0],
        "wrongly.jpg": encode("png", [picture()])[0],
    }.items():
        (folder / name).write_bytes(data)
    run = subprocess.run(
        ["tar", f"c{option}f", "-", f"--format={kind}", "--sort=name", "in"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    if run.returncode and option:
        pytest.skip("tar cannot compress here: " + run.stderr.decode())
    found = decode(run.stdout, stream=True, name="<stdin>")
    assert [record.name for record in found] == [
        "in/deep/a.png",
        *[f"in/deep/{long}.ppm"] * 2,
        "in/deep/s.safetensors",
        "in/deep/wrongly.jpg",
        "in/deep/ü 画.jpg",
    ]
    assert [record.index for record in found] == list(range(6))
    assert np.array_equal(found[0].array, noise().array)
    assert found[4].meta["format"] == "png" and abs(found[0].meta["mtime"] - time.time()) < 1000


@needs_tar
def test_what_gnu_tar_unpacks(tmp_path):
    wanted = {
        "a/b.png": noise(),
        "c.jpg": picture(),
        "ü 画/d.ppm": noise(),
        "long" * 60 + "/e": noise(),
        "f.txt": noise(),
    }
    records = [streams.Image(record.array, name=name) for name, record in wanted.items()]
    records += [streams.Tensors({"x": np.ones(3)}, name=name) for name in ("g.safetensors", "h.png", "i.npy")]
    data, _ = encode("tar", records)
    assert len(data) % 10240 == 0
    done = subprocess.run(["tar", "xvf", "-"], input=data, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
    names = [
        "a/b.png",
        "c.jpg",
        "ü 画/d.ppm",
        "long" * 60 + "/e.png",
        "f.txt.png",
        "g.safetensors",
        "h.png.safetensors",
        "i.npy",
    ]
    assert all((tmp_path / name).is_file() for name in names)
    assert np.array_equal(streams.open_image(tmp_path / "a/b.png").array, noise().array)
    assert streams.open_image(tmp_path / "c.jpg").meta["format"] == "jpeg"
    assert (tmp_path / "a/b.png").stat().st_mode & 0o777 == 0o644


def test_the_time_of_a_member_is_kept():
    data = archive({"a.png": encode("png", [picture()])[0]})
    again, _ = encode("tar", decode(data))
    with tarfile.open(fileobj=io.BytesIO(again)) as opened:
        assert opened.next().mtime == 1_600_000_000
    assert encode("tar", decode(data))[0] == again


def test_bad_members_do_not_harm_the_others():
    good = encode("png", [picture()])[0]
    members = {
        "1.png": good,
        "text.txt": b"hello",
        "empty.png": b"",
        "cut.png": good[:-20],
        "two.ppm": encode("ppm", [picture()])[0] + b"P6 9 9 255\nshort",
        "/etc/passwd.png": good,
        "a/../../b.png": good,
        "nested.tar": archive({"x.png": good}),
        "2.png": good,
    }
    found = decode(archive(members), stream=True)
    assert [(record.name, isinstance(record, streams.Bad)) for record in found] == [
        ("1.png", False),
        ("text.txt", True),
        ("empty.png", True),
        ("cut.png", True),
        ("two.ppm", False),
        ("two.ppm", True),
        ("/etc/passwd.png", True),
        ("a/../../b.png", True),
        ("nested.tar", True),
        ("2.png", False),
    ]
    for number, record in enumerate(found):
        assert record.index == number
        if isinstance(record, streams.Bad):
            assert isinstance(record.error, errors.DataError)
            assert str(record.error).startswith(record.name + ": ") and str(record.error).count(record.name) == 1


def test_links_and_devices_are_bad_and_folders_are_nothing():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"kind{kind.decode()}")
            info.type, info.linkname = kind, "/etc/passwd"
            made.addfile(info)
    found = decode(out.getvalue())
    assert len(found) == 4 and all(isinstance(record, streams.Bad) for record in found)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_cut_is_noticed(mode):
    data = archive({f"{n}.png": encode("png", [noise(seed=n)])[0] for n in range(3)}, mode)
    if mode == "w":
        data = data[: 3 * 2560 + 512] if len(data) > 10240 else data[: data.rindex(b"IEND") // 512 * 512 + 512]
    assert len(decode(Dribble(data))) == 3 if mode != "w" else True
    for cut in sorted({*range(1, len(data), 97), *range(512, len(data), 512), len(data) - 1}):
        found, message = until_error(data[:cut], stream=True)
        assert message, cut
        assert all(isinstance(record, streams.Image) for record in found)
        for number, record in enumerate(found):
            assert np.array_equal(record.array, noise(seed=number).array)


def test_damage_in_a_header_is_not_the_end():
    data = bytearray(archive({f"{n}.png": encode("png", [picture()])[0] for n in range(3)}))
    place = data.index(b"1.png")
    data[place + 148 : place + 154] = b"999999"
    found, message = until_error(bytes(data))
    assert len(found) == 1 and "damaged tar" in message


def test_what_follows_the_end_is_not_lost_silently():
    data = archive({"a.png": encode("png", [picture()])[0]})
    assert until_error(data + bytes(5000))[1] is None
    found, message = until_error(data + data)
    assert len(found) == 1 and "follows the end" in message


@pytest.mark.parametrize("size", [10**12, 2**70])
def test_a_member_that_claims_everything_is_left_at_once(size):
    info = tarfile.TarInfo("x.png")
    info.size = size
    data = archive({"1.png": encode("png", [picture()])[0]})[: -tarfile.RECORDSIZE or None]
    data = data[: data.rindex(b"IEND") // 512 * 512 + 512] if b"IEND" in data else b""
    start = time.monotonic()
    found, message = until_error(data + info.tobuf(tarfile.GNU_FORMAT) + b"some bytes")
    assert time.monotonic() - start < 5
    assert isinstance(found[-1], streams.Bad) and message


def test_names_are_made_safe_and_unique():
    out = io.BytesIO()
    writer = streams.writer(out, "tar")
    for name in ("/abs/a.png", "../up/b.png", "./c/./d.png", "", ""):
        writer.write(streams.Image(picture().array, name=name))
    for name in ("abs/a.png", "/abs/a.png", "c/d.png"):
        with pytest.raises(errors.CannotCreate, match="twice"):
            writer.write(streams.Image(picture().array, name=name))
    writer.close()
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as opened:
        assert opened.getnames() == ["abs/a.png", "up/b.png", "c/d.png", "000003.png", "000004.png"]


def test_options_reach_the_members():
    records = [streams.Image(picture(90, 90).array, name="a.jpg")]
    assert len(encode("tar", records, quality=5)[0]) < len(encode("tar", records, quality=100)[0])


def test_a_video_in_an_archive():
    data = archive(
        {"v.y4m": encode("y4m", [picture(phase=n) for n in range(3)])[0], "w.png": encode("png", [picture()])[0]}
    )
    assert [record.name for record in decode(data)] == ["v.y4m"] * 3 + ["w.png"]


def test_what_is_lost_is_said_once_for_all_members(capsys):
    clear = noise(channels=4).array
    encode("tar", [streams.Image(clear, name=f"{n}.jpg") for n in range(3)])
    assert capsys.readouterr().err.count("alpha") == 1
