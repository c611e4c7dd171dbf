"""Videos as pictures with their times, read through the ffmpeg that imageio-ffmpeg brings.

Animated GIF and WebP are read by Pillow, numbered pictures (frame-%06d.png) by our own readers; they look the same from
here. What writes films is in engine/mux.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import queue
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from styletools import errors, log, streams

EXTENSIONS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".ts", ".mts", ".m2ts",
    ".3gp", ".gif",
)  # fmt: skip

# Read by Pillow: ffmpeg knows animated WebP in its newest versions only. Extension -> what times are counted in.
_ANIMATIONS = {".gif": Fraction(1, 100), ".webp": Fraction(1, 1000)}
# Bytes of decoded frames that may wait for whoever takes them.
_AHEAD = 64 << 20
_PIPE_SIZE = 1 << 20
NUMBER = re.compile(r"%0?(\d*)d")  # in the file name of numbered pictures
# A line of the filter "showinfo" and what stands there beside its own words.
_OVERWRITTEN = re.compile(r"\[info\] (?:n:.* type:\S|color_range:\S+(?: color_\w+:\S+)*) +(?!color_)(\S.*)")
# How colours are converted: there and back, 65 dB are left of 4:2:0, where ffmpeg's faster defaults leave 46.
SCALING = "bilinear+accurate_rnd+full_chroma_int"
# Matrices as streams name them -> as ffmpeg's filter "scale" does.
MATRICES = {
    "bt709": "bt709", "smpte170m": "bt601", "bt470bg": "bt601", "fcc": "fcc", "smpte240m": "smpte240m",
    "bt2020nc": "bt2020", "bt2020c": "bt2020",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stream:
    """One stream of a file: its number there, "video", "audio", "subtitle", "data" or "attachment", and its codec."""

    index: int
    kind: str
    codec: str
    language: str = ""
    cover: bool = False


@dataclasses.dataclass(frozen=True)
class Info:
    """What is known of a video before it is read; of frames that come from elsewhere, what they shall become.

    Sizes are upright ones. `rate` is the average in frames a second, times are exact multiples of `time_base`. `aspect`
    is that of a pixel; `depth` the bits of a sample. `range` is "tv" or "pc"; it, `matrix`, `primaries` and `transfer`
    are named as ffmpeg names them, and empty where the file does not tell. `start` is the time of the first frame,
    `duration` that of the whole file in seconds, None where it does not tell.
    """

    width: int
    height: int
    rate: Fraction
    time_base: Fraction = Fraction(1, 90_000)
    pix_fmt: str = "rgb24"
    depth: int = 8
    aspect: Fraction | None = None
    range: str = ""
    matrix: str = ""
    primaries: str = ""
    transfer: str = ""
    start: Fraction = Fraction(0)
    duration: Fraction | None = None
    streams: tuple[Stream, ...] = ()
    index: int = 0
    chapters: int = 0

    @property
    def is_rgb(self) -> bool:
        """Whether the pixels are no YCbCr."""
        return self.matrix == "gbr" or bool(re.match(r"gbr|x?[rb]g[rb]|0[rb]g|[ar0]*rgb|abgr|pal8|mono", self.pix_fmt))

    @property
    def is_full(self) -> bool:
        """Whether samples of YCbCr use the full range."""
        return not self.is_rgb and (self.range == "pc" or self.pix_fmt.startswith("yuvj"))

    @property
    def coefficients(self) -> str:
        """The matrix between YCbCr and RGB, as the filter "scale" calls it.

        Where the file does not tell it is guessed as players do: BT.709 for high definition, else BT.601.
        """
        return MATRICES.get(self.matrix, "bt709" if self.width >= 1280 or self.height > 576 else "bt601")

    def of_kind(self, kind: str) -> list[Stream]:
        """Return the streams of a kind, but for cover pictures."""
        return [each for each in self.streams if each.kind == kind and not each.cover]


@dataclasses.dataclass
class Frame:
    """A frame, the time when it is shown, and how long it is by what the file says, in seconds."""

    image: streams.Image
    time: Fraction
    duration: Fraction

    @property
    def end(self) -> Fraction:
        """When the next frame follows, by what the file says."""
        return self.time + self.duration


def is_video(path: str | os.PathLike) -> bool:
    """Tell whether a file's name has an extension of videos."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def is_sequence(path: str) -> bool:
    """Tell whether a path names many pictures in order: a stream (-), an archive, a video, a file of several pictures.

    Of those that may hold one or several (ppm, pam, gif) the file is looked into.
    """
    found = streams.by_extension(os.path.splitext(path)[1])
    if path == "-" or found in ("tar", "y4m") and not os.path.isdir(path):
        return True
    if found not in ("ppm", "pam", "gif"):
        return is_video(path)
    with contextlib.suppress(errors.StyletoolsError, OSError), open(path, "rb", buffering=0) as source:
        pictures = list(itertools.islice(streams.read(source), 2))
        return len(pictures) > 1 or any(each.meta.get("frames") for each in pictures if found == "gif")
    return False


def is_numbered(path: str | os.PathLike) -> bool:
    """Tell whether a path stands for numbered pictures: `%d` or `%06d` in its name, which no file has."""
    name = os.path.basename(os.fsdecode(path))
    return len(NUMBER.findall(name)) == 1 and not os.path.exists(path)


def has_seeking(path: str | os.PathLike) -> bool:
    """Tell whether `read` gets to a later part of a film without reading all that is before."""
    return not is_numbered(path) and _extension(os.fsdecode(path)) not in _ANIMATIONS


def frames(path: str | os.PathLike) -> Iterator[streams.Image]:
    """Yield the frames of a video file as pictures, 8-bit RGB, upright, called 000001, 000002 and so on.

    Frames are those that the file holds, each once, whatever their times. ffmpeg ends with the iterator. Raises
    MissingInput, NotPermitted and their like where the file cannot be opened, and DataError, after the frames before,
    where ffmpeg gives up or finds no frame; what it complains of and survives, an early end too, is a warning.
    """
    for frame in read(path, deep=False, whole=False):
        yield frame.image


def probe(path: str | os.PathLike, *, rate: Fraction = Fraction(25)) -> Info:
    """Return what a file tells of its first video, cover pictures not counted, from its head and its first frame.

    `rate` is that of numbered pictures, which have none. Raises MissingInput and its like where the file cannot be
    opened, DataError where it holds no video that ffmpeg reads.
    """
    name = os.fsdecode(path)
    if is_numbered(name):
        first = streams.open_image(numbered(name)[0])
        height, width = first.array.shape[:2]
        depth = first.array.dtype.itemsize * 8
        duration = len(numbered(name)) / rate
        return Info(width, height, rate, 1 / rate, "rgb48le" if depth > 8 else "rgb24", depth, duration=duration)
    _check(name)
    if _extension(name) in _ANIMATIONS:
        return _probe_animation(name)
    # With "file:" a name is taken neither for an option nor for one of ffmpeg's protocols.
    words = ["-i", f"file:{os.path.abspath(name)}", "-map", "0:V:0", "-vf", "showinfo=checksum=0", "-frames:v", "1"]
    words += ["-f", "null", "-", *all_streams()]
    done = subprocess.run(
        [*ffmpeg(), "-v", "level+info", *words], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    lines = done.stderr.decode(errors="replace").splitlines()
    text = "\n".join(re.sub(r"^((?:\[[^]]*\] )*)\[info\] ", r"\1", line) for line in lines)
    shown = re.search(r" n: *0 pts: *(\S+) .*? fmt:(\S+) .*?sar:(\d+)/(\d+) s:(\d+)x(\d+)", text)
    if not shown:
        reason = first_reason(lines) or "holds no picture"
        if "matches no streams" in reason:
            reason = "holds no video"
        elif not re.search(r"Input #\d", text):
            detail = "" if "Invalid data found" in reason else f" ({reason})"
            reason = f"not a video, or damaged at its beginning{detail}"
        raise errors.DataError(f"{name}: {reason}")
    base, guess = re.search(r"config in time_base: (\d+/\d+), frame_rate: (\d+/\d+)", text).groups()
    index = int(re.search(r"^  Stream [#]0:(\d+) -> [#]0:0", text, re.MULTILINE)[1])
    head = text.partition("Stream mapping:")[0]
    found = re.findall(r"^  Stream [#]0:(\d+)(?:\[\w+\])?(?:\((\w+)\))?: (\w+): (\w+)(.*)", head, re.MULTILINE)
    told = {int(number): rest for number, *_, rest in found}[index]
    colours = dict(re.findall(r" color_(range|space|primaries|trc):([^\s/]+)", text.partition(shown[0])[2]))
    known = {key: "" if value in ("unknown", "reserved", "unspecified") else value for key, value in colours.items()}
    length = re.search(r"^  Duration: (\d+):(\d+):([\d.]+)", head, re.MULTILINE)
    time_base = Fraction(base)
    return Info(
        width=int(shown[5]), height=int(shown[6]),
        rate=_rate(told, guess),
        time_base=time_base,
        pix_fmt=shown[2],
        depth=_depths().get(shown[2], 8),
        aspect=Fraction(int(shown[3]), int(shown[4])) if int(shown[3]) and int(shown[4]) else None,
        range=known.get("range", ""), matrix=known.get("space", ""),
        primaries=known.get("primaries", ""), transfer=known.get("trc", ""),
        start=int(shown[1]) * time_base if shown[1].lstrip("-").isdigit() else Fraction(0),
        duration=int(length[1]) * 3600 + int(length[2]) * 60 + Fraction(length[3]) if length else None,
        streams=tuple(
            Stream(int(number), kind.lower(), codec, language, "(attached pic)" in rest)
            for number, language, kind, codec, rest in found
        ),
        index=index,
        chapters=len(re.findall(r"^    Chapter #", head, re.MULTILINE)),
    )  # fmt: skip


def read(
    path: str | os.PathLike,
    *,
    info: Info | None = None,
    start: Fraction | None = None,
    duration: Fraction | None = None,
    skip: int = 0,
    deep: bool | None = None,
    whole: bool = True,
    rate: Fraction = Fraction(25),
) -> Iterator[Frame]:
    """Yield the frames that a file holds, each once, upright, with the times at which they are shown.

    They are 8-bit RGB, or 16-bit where the file has more than 8 bits; `deep` forces one of both. From `start`, where
    times then count from, for `duration` seconds; the first `skip` frames of these are passed over, cheaply. `info` is
    what `probe` returned, if it was asked. Decoding runs ahead in other processes and threads, which end with the
    iterator. Numbered pictures follow each other at `rate`.
    Raises as `probe` does, and DataError, after all frames before, where ffmpeg gives up, or complains and ends half
    a second or more before the end that the file tells of (not `whole`: then that is a warning too). Other complaints
    are a warning.
    """
    name = os.fsdecode(path)
    info = info or probe(path, rate=rate)
    deep = info.depth > 8 if deep is None else deep
    if not has_seeking(name):
        pictures = _pictures(name, info) if is_numbered(name) else _animation(name)
        yield from _cut(pictures, start or Fraction(0), duration, skip, deep)
    else:
        yield from _decode(name, info, start, duration, skip, deep, whole)


def _decode(name, info, start, duration, skip, deep, whole) -> Iterator[Frame]:
    chain = [f"select=gte(n\\,{skip})"] if skip else []
    chain.append("showinfo=checksum=0")
    # The size is fixed, so that a stream which changes its own in the middle still makes frames of one size.
    chain.append(f"scale={info.width}:{info.height}:flags={SCALING}")
    if not info.is_rgb:
        chain[-1] += f":in_color_matrix={info.coefficients}:in_range={'pc' if info.is_full else 'tv'}"
    layout = "rgb48le" if deep else "rgb24"
    cut = ["-ss", seconds(start)] if start else []
    cut += ["-t", seconds(duration)] if duration is not None else []
    words = [*cut, "-i", f"file:{os.path.abspath(name)}", "-map", "0:V:0"]
    words += ["-vf", ",".join([*chain, f"format={layout}"]), "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"]
    words += all_streams()
    command = [*ffmpeg(), "-v", "level+info", *words]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        start_new_session=True,
    )  # fmt: skip
    widen(process.stdout)
    shape = (info.height, info.width, 3)
    size = info.height * info.width * (6 if deep else 3)
    ready: queue.Queue = queue.Queue(max(2, min(16, _AHEAD // size)))
    times: queue.Queue = queue.Queue()
    complaints: list[str] = []
    muffled: list[str] = []
    reader = threading.Thread(target=_take, args=(process.stdout, shape, "<u2" if deep else "u1", ready), daemon=True)
    listener = threading.Thread(target=_listen, args=(process.stderr, times, complaints, muffled), daemon=True)
    reader.start()
    listener.start()
    number, last = 0, None
    try:
        while not isinstance(array := ready.get(), int):
            said = times.get()  # ffmpeg tells the time of a frame before it hands the frame on
            time, length = said or (None, None)
            if time is None:
                time = last.end if last else Fraction(0)
            if last and time <= last.time:  # damaged files: nothing can be shown before what came before it
                time = last.time + info.time_base
            number += 1
            image = streams.Image(array, name=f"{number + skip:06d}", index=number + skip - 1)
            last = Frame(image, time, length or 1 / info.rate)
            yield last
            last = dataclasses.replace(last, image=None)
        cut_off = array > 0
        status = process.wait()
        listener.join()
    finally:
        process.kill()
        process.wait()
        while reader.is_alive():
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.05)
        listener.join()
        process.stdout.close()
        process.stderr.close()
    reason = complaints[0] if complaints else ""
    if status or cut_off or not (number or skip or start):
        raise errors.DataError(f"{name}: {reason or ('ffmpeg was stopped' if number else 'holds no picture')}")
    left = info.duration - (start or 0) if info.duration is not None else Fraction(0)
    end = left if duration is None else min(left, duration)
    if whole and (reason or muffled) and end - (last.end if last else 0) >= Fraction(1, 2):
        raise errors.DataError(f"{name}: {reason or muffled[0]}")
    if reason:
        log.warning(f"{name}: {reason}")


def _take(pipe, shape, dtype, ready: queue.Queue) -> None:
    """Put frames into `ready`, and at the end the number of bytes that are no whole frame."""
    import numpy as np

    while True:
        array = np.empty(shape, dtype)
        view = memoryview(array).cast("B")
        got = 0
        while got < len(view) and (count := pipe.readinto(view[got:])):
            got += count
        if got < len(view):
            ready.put(got)
            return
        ready.put(array)


def _listen(pipe, times: queue.Queue, complaints: list[str], muffled: list[str]) -> None:
    """Put what the filter "showinfo" says of each frame's time into `times`, and errors into `complaints`.

    Where another thread of ffmpeg wrote into a line of the filter, its words come without their level: into `muffled`.
    """
    base = Fraction(0)
    for raw in pipe:
        line = raw.decode(errors="replace")
        if shown := re.search(r"\] \[info\] n: *\d+ pts: *(\S+)(?:.*? duration: *(\d+) )?", line):
            pts = int(shown[1]) * base if shown[1].lstrip("-").isdigit() else None
            times.put((pts, int(shown[2] or 0) * base))
        if overwritten := _OVERWRITTEN.search(line):
            muffled.append(log.printable(overwritten[1].strip()))
        elif found := re.search(r"config in time_base: (\d+/\d+)", line):
            base = Fraction(found[1])
        elif reason := first_reason([line]):
            complaints.append(reason)
    times.put(None)


def numbered(pattern: str) -> list[str]:
    """Return the files of numbered pictures in order, however many are missing between. MissingInput without any."""
    folder, base = os.path.split(pattern)
    before, _, after = NUMBER.split(base)
    form = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    try:
        found = sorted((int(match[1]), each) for each in os.listdir(folder or ".") if (match := form.fullmatch(each)))
    except OSError as error:
        raise errors.from_os_error(error, pattern) from error
    if not found:
        raise errors.MissingInput(f"{pattern}: no such files")
    return [os.path.join(folder, each) for _, each in found]


def _pictures(pattern: str, info: Info) -> Iterator[Frame]:
    for number, path in enumerate(numbered(pattern)):
        image = streams.open_image(path)
        if image.array.shape[:2] != (info.height, info.width):
            raise errors.DataError(f"{path}: is not as large as the first picture, {info.width}x{info.height}")
        yield Frame(image, number / info.rate, 1 / info.rate)


def _animation(name: str) -> Iterator[Frame]:
    import PIL.Image
    import PIL.ImageSequence

    from styletools.streams import _pixels

    time = Fraction(0)
    with _pixels.decoding(f"animation {name}"), PIL.Image.open(name) as opened:
        for number, picture in enumerate(PIL.ImageSequence.Iterator(opened)):
            image = streams.Image(_pixels.from_pillow(picture.convert("RGBA")), index=number)
            # Browsers show what asks for no time at all for a tenth of a second.
            length = Fraction(round(picture.info.get("duration") or 100), 1000)
            yield Frame(image, time, length)
            time += length


def _probe_animation(name: str) -> Info:
    count, end = 0, Fraction(0)
    for frame in _animation(name):
        count, end, shape = count + 1, frame.end, frame.image.array.shape
    return Info(shape[1], shape[0], count / end, _ANIMATIONS[_extension(name)], duration=end)


def _cut(found: Iterator[Frame], start: Fraction, duration: Fraction | None, skip: int, deep: bool) -> Iterator[Frame]:
    """Yield what `read` was asked for of frames that are all read, as RGB of the wanted depth."""
    number = 0
    for frame in found:
        if frame.time < start:
            continue
        if duration is not None and frame.time >= start + duration:
            return
        number += 1
        if number > skip:
            array = streams.flat_rgb(frame.image)
            array = streams.to_16bit(array) if deep else streams.to_8bit(array)
            yield Frame(streams.Image(array, f"{number:06d}", number - 1), frame.time - start, frame.duration)


def _check(name: str) -> None:
    """Raise the error of a file that cannot be opened, is empty or a pipe."""
    try:
        found = os.stat(name)
        if stat.S_ISFIFO(found.st_mode):  # opening one would wait, and take away what is in it
            raise errors.DataError(f"{name}: is a pipe: films are read more than once; y4m may come by standard input")
        open(name, "rb").close()
    except OSError as error:
        raise errors.from_os_error(error, name) from error
    if stat.S_ISREG(found.st_mode) and not found.st_size:
        raise errors.DataError(f"{name}: is empty")


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _rate(told: str, guess: str) -> Fraction:
    """Return the frame rate that ffmpeg guessed exactly, or the average that it printed where that is another."""
    number, _, denominator = guess.partition("/")
    exact = Fraction(int(number), int(denominator)) if int(number) and int(denominator) else Fraction(0)
    printed = re.search(r" ([\d.]+)(k?) fps", told)
    average = Fraction(printed[1]) * (1000 if printed[2] else 1) if printed else Fraction(0)
    if average and abs(exact - average) > average / 100:
        return average
    return exact or Fraction(25)


@functools.cache
def _depths() -> dict[str, int]:
    """Return the bits of a sample for each pixel format that this ffmpeg knows."""
    done = subprocess.run([*ffmpeg(), "-pix_fmts"], capture_output=True, text=True, errors="replace")
    found = re.findall(r"^[A-Z.]{5} (\w+) +\d+ +\d+ +([\d-]+)", done.stdout, re.MULTILINE)
    return {name: max(map(int, re.findall(r"\d+", bits)), default=8) for name, bits in found}


def ffmpeg() -> list[str]:
    """Return the command that runs ffmpeg, quiet about itself and deaf to the terminal. Unavailable without one."""
    import imageio_ffmpeg

    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise errors.Unavailable(f"no ffmpeg: {str(error).splitlines()[0]}") from error
    if not shutil.which(program):  # IMAGEIO_FFMPEG_EXE may say anything
        raise errors.Unavailable(f"no ffmpeg: {program} is no program")
    # Statistics are lines without an end: an error would not be seen behind them.
    return [program, "-hide_banner", "-nostdin", "-nostats"]


def all_streams(number: int = 0) -> list[str]:
    """Return an output of ffmpeg that is empty, but uses all streams of an input.

    Times count from the beginning of the stream that begins first; of some formats (MPEG-TS) ffmpeg takes only those
    that it uses. With this, sound and pictures that are read by different processes count from the same moment.
    """
    words = [word for kind in "vasd" for word in ("-map", f"{number}:{kind}?")]
    return [*words, "-c", "copy", "-t", "0", "-f", "null", "-"]


def first_reason(lines: list[str]) -> str:
    """Return the first error among lines that ffmpeg printed with `-v level+...`, without the part that it came from.

    It is the cause of all others.
    """
    for line in lines:
        found = re.match(r"(?:\[[^]]*\] )*\[(?:error|fatal|panic)\] (.+)|\w+ \[error\]: (.+)", line.strip())
        if found:
            return log.printable(found[1] or found[2])[:300]
    return ""


def seconds(time: Any) -> str:
    """Return a time as ffmpeg's options take it."""
    return f"{float(time):.6f}"


def widen(pipe) -> None:
    """Make a pipe hold more, so that both ends wait for each other less often, where the system lets us."""
    import fcntl

    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
