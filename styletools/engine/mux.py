"""Pictures with times into video files: segments that are encoded one by one, then the film of all with its sound.

Frames reach ffmpeg as Matroska, which carries a time for each, what raw video and y4m do not. Segments are NUT files
with exact times, and a line behind that says when they begin and end. NUT files that follow each other, the first's
signature alone kept, are one NUT file: so films are joined without a seam, whatever codec made them, and one that was
interrupted is the same as one that was not.
Source: RFC 8794 (EBML), RFC 9559 (Matroska); the NUT open container format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import re
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from styletools import errors, files, log, streams
from styletools.engine import video
from styletools.engine.video import Frame, Info

# Extension of a film -> what ffmpeg calls the container, and the encoder that is taken where none is asked for.
CONTAINERS = {
    ".mp4": ("mp4", "libx264"), ".m4v": ("mp4", "libx264"), ".mov": ("mov", "libx264"),
    ".mkv": ("matroska", "libx264"), ".webm": ("webm", "libvpx-vp9"), ".avi": ("avi", "libx264"),
    ".ts": ("mpegts", "libx264"), ".mts": ("mpegts", "libx264"), ".m2ts": ("mpegts", "libx264"),
    ".flv": ("flv", "libx264"), ".ogv": ("ogg", "libtheora"), ".gif": ("gif", "ffv1"), ".webp": ("webp", "ffv1"),
}  # fmt: skip
# Options by encoder, of little loss; what the user asks for comes after and wins.
_DEFAULTS = {
    "libx264": {"crf": "18", "preset": "fast"},
    "libx265": {"crf": "20", "preset": "fast", "x265-params": "log-level=error"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "libaom-av1": {"crf": "24", "cpu-used": "6", "row-mt": "1"},
    "libsvtav1": {"crf": "26", "preset": "8"},
    "libtheora": {"q": "8"},
}
# Options by which ffmpeg itself does something else with the frames: they are none of an encoder.
_NOT_THE_ENCODERS = {
    "c", "codec", "vcodec", "vf", "filter", "filter_script", "frames", "vframes", "r", "fpsmax", "s", "aspect", "bsf",
    "fps_mode", "enc_time_base", "tag", "disposition", "metadata",
}  # fmt: skip
# A number that does not come from the machine: x264 makes another file for each number of threads.
_THREADS = "8"
# Frames that may wait for ffmpeg, in bytes.
_WAITING = 32 << 20
_SIGNATURE = b"nut/multimedia container\0"
_TRAILER = 128  # bytes of the line behind a segment
# Bitmaps: no container makes text of them.
_BITMAPS = ("dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle", "xsub", "dvb_teletext", "arib_caption")
_SUBTITLES = {"mp4": "mov_text", "mov": "mov_text", "webm": "webvtt", "matroska": "srt"}
# What Matroska files say of the bytes of a stream, which is another stream now.
_STALE = ("BPS", "DURATION", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "_STATISTICS_WRITING_APP",
          "_STATISTICS_WRITING_DATE_UTC", "_STATISTICS_TAGS", "rotate", "encoder")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How a film is encoded, the same for all its segments: container, encoder, pixel format, the encoder's options."""

    container: str
    codec: str
    pix_fmt: str
    options: tuple[tuple[str, str], ...] = ()


def resized(info: Info, height: int, width: int) -> Info:
    """Return what is known of a film that becomes another size."""
    return dataclasses.replace(info, height=height, width=width)


def plan(
    output: str | os.PathLike,
    like: Info,
    *,
    codec: str | None = None,
    crf: float | None = None,
    options: Iterable[tuple[str, str]] = (),
) -> Encoding:
    """Return how a film called `output` is encoded, after a try with one black frame: what is wrong is found early.

    The pixel format is that of the source where the encoder takes it, else the nearest; 4:2:0 for RGB and grey sources,
    since that plays everywhere. `options` are the encoder's, by ffmpeg's names, `pix_fmt` among them. Where odd sizes
    do not fit a format with less chroma (H.264, H.265) it becomes 4:4:4, with a warning: the picture keeps its size.
    Raises UsageError for a container, an encoder, an option or a value that there is not, or that do not fit together.
    """
    name = os.fsdecode(output)
    if os.path.splitext(name)[1].lower() not in CONTAINERS:
        raise errors.UsageError(f"{name}: not a film that can be written; there are {', '.join(CONTAINERS)}")
    container, encoder = CONTAINERS[os.path.splitext(name)[1].lower()]
    asked = dict(options)
    if crf is not None:
        asked = {"crf": f"{crf:g}"} | asked
    if container in ("gif", "webp"):
        if codec or asked:
            raise errors.UsageError(f"{name}: an animation takes no codec and no options of one")
        return Encoding(container, encoder, "bgr0")
    encoder = codec or encoder
    if encoder == "copy":
        raise errors.UsageError(f"{name}: copy is no encoder, and frames that are new have to be encoded")
    for key in asked:
        if not re.fullmatch(r"[A-Za-z][\w-]*", key) or key in _NOT_THE_ENCODERS:
            raise errors.UsageError(f"not the name of an option of an encoder: {key!r}")
    wanted = asked.pop("pix_fmt", "")
    settings = _DEFAULTS.get(encoder, {}) | asked
    if container == "avi" and "bf" not in settings:
        settings["bf"] = "0"  # AVI has no times for frames that are not coded in order
    given = Encoding(container, encoder, wanted or _pixel_format(like), tuple(settings.items()))
    problem, pix_fmt = _try(given, like)
    full = re.sub("4[12][0-2]", "444", given.pix_fmt)
    if problem and not wanted and full != given.pix_fmt and (like.width % 2 or like.height % 2):
        again, found = _try(dataclasses.replace(given, pix_fmt=full), like)
        if not again:
            problem, pix_fmt = again, found
            log.warning(
                f"{name}: colours are kept in full resolution (4:4:4), because {like.width}x{like.height} is odd; "
                "some players show that only in software, or not at all"
            )
    if problem:
        raise errors.UsageError(f"{name}: {encoder}: {problem}")
    return dataclasses.replace(given, pix_fmt=pix_fmt)


def _pixel_format(like: Info) -> str:
    """Return the nearest format to that of the source that video encoders know: planar, opaque, of colour."""
    deep = f"{10 if like.depth <= 10 else 12}le" if like.depth > 8 else ""
    if like.is_rgb or like.pix_fmt.startswith(("gray", "ya")):
        return "yuv420p10le" if deep else "yuv420p"
    planes = re.match(r"yuvj?a?(4\d\d)p", like.pix_fmt)
    if planes:
        return f"yuv{planes[1]}p{deep}"
    if re.match(r"yuyv|uyvy|yvyu|nv16|nv20|p2|y2", like.pix_fmt):
        return f"yuv422p{deep}"
    if re.match(r"nv24|nv42|p4|y4|ayuv|vuy|xv|v30|uyva|vyu", like.pix_fmt):
        return f"yuv444p{deep}"
    return f"yuv420p{deep}"


def _try(given: Encoding, like: Info) -> tuple[str, str]:
    """Encode one black frame and put it into the container; return what is wrong and the pixel format that was taken.

    ffmpeg takes the nearest format that the encoder knows.
    """
    deep = like.depth > 8
    frame = b"".join(_block(like.start, 1 / like.rate, bytes(like.width * like.height * (6 if deep else 3))))
    words = [*_input(like), "-vf", _conversion(like, given.pix_fmt), *_encoder(given, like), "-f", "nut", "pipe:1"]
    done = subprocess.run(
        [*video.ffmpeg(), "-v", "level+info", *words],
        input=_header(like.width, like.height, deep) + frame, capture_output=True, start_new_session=True,
    )  # fmt: skip
    lines = done.stderr.decode(errors="replace").splitlines()
    unused = next((line for line in lines if "has not been used for any stream" in line), "")
    if unused:
        return f"has no option {re.search('AVOption ([^: ]+)', unused)[1]}", ""
    if done.returncode:
        return video.first_reason(lines) or "does not work", ""
    taken = re.findall(r"Stream [#]0:0.*?: Video: .*?, (\w+)", "\n".join(lines))[-1]
    words = ["-f", "nut", "-i", "pipe:0", "-c", "copy", *_into(given), "-f", given.container, "-y", os.devnull]
    remuxed = subprocess.run(
        [*video.ffmpeg(), "-v", "level+error", *words], input=done.stdout, capture_output=True, start_new_session=True
    )
    if remuxed.returncode:
        return video.first_reason(remuxed.stderr.decode(errors="replace").splitlines()) or "does not fit", ""
    return "", taken


def _conversion(like: Info, pix_fmt: str) -> str:
    """Return the filters that take RGB to what the source is: matrix, range, tags, shape of a pixel."""
    rgb = bool(re.match(r"gbr|bgr|rgb|0rgb|0bgr", pix_fmt))
    # Tags that the source has not, the film has not either, but for a matrix where the source has none at all.
    matrix = like.matrix if like.matrix in video.MATRICES else ""
    if like.is_rgb or like.matrix and not matrix:
        matrix = {"bt601": "smpte170m"}.get(like.coefficients, like.coefficients)
    levels = "pc" if like.is_full else "tv" if like.range else "unknown"
    if rgb:
        matrix, levels = "gbr", "pc"
    tags = f"range={levels}:colorspace={matrix or 'unknown'}"
    tags += f":color_primaries={like.primaries or 'unknown'}:color_trc={like.transfer or 'unknown'}"
    into = "" if rgb else f":out_color_matrix={like.coefficients}:out_range={'pc' if like.is_full else 'tv'}"
    aspect = f"{like.aspect.numerator}/{like.aspect.denominator}" if like.aspect else "0"
    return f"scale=flags={video.SCALING}{into},format={pix_fmt},setparams={tags},setsar={aspect}:max=65535"


def _input(like: Info) -> list[str]:
    # The rate is a hint for encoders that spend bits by it; times are those of the frames.
    return ["-copyts", "-f", "matroska", "-i", "pipe:0", "-map", "0:v:0"]


def _encoder(given: Encoding, like: Info) -> list[str]:
    base = like.time_base
    words = ["-fps_mode", "passthrough", "-enc_time_base", f"{base.numerator}:{base.denominator}"]
    words += ["-c:v", given.codec, "-pix_fmt", given.pix_fmt, "-threads", _THREADS]
    words += [word for key, value in given.options for word in (f"-{key}:v", value)]
    # NUT needs no times from nought on, and segments must not be moved to there.
    return [*words, "-flags:v", "+bitexact", "-fflags", "+bitexact", "-avoid_negative_ts", "disabled"]


def _into(given: Encoding) -> list[str]:
    """Return the options that a container wants of a video stream that is copied into it."""
    if given.container in ("mp4", "mov") and re.search("265|hevc", given.codec):
        return ["-tag:v", "hvc1"]  # the only one that Apple's players take
    return []


def _start(name: str, size: int) -> bytes:
    """Return the beginning of an EBML element whose data have so many bytes."""
    return bytes.fromhex(name) + (size | 1 << 56).to_bytes(8, "big")


def _element(name: str, data: bytes) -> bytes:
    return _start(name, len(data)) + data


def _number(name: str, value: int) -> bytes:
    return _element(name, value.to_bytes(8, "big"))


def _header(width: int, height: int, deep: bool) -> bytes:
    """Return the beginning of a Matroska stream of uncompressed RGB whose times are nanoseconds."""
    kind = _element("4282", b"matroska") + _number("4287", 4) + _number("4285", 2)
    fourcc = b"RGB" + bytes([48 if deep else 24])
    shape = _number("b0", width) + _number("ba", height) + _element("2eb524", fourcc)
    track = _number("d7", 1) + _number("73c5", 1) + _number("83", 1) + _element("22b59c", b"und")
    track += _element("86", b"V_UNCOMPRESSED") + _element("e0", shape)
    endless = bytes.fromhex("18538067 01ffffffffffffff")
    return (
        _element("1a45dfa3", kind) + endless + _element("1549a966", _number("2ad7b1", 1))
        + _element("1654ae6b", _element("ae", track))
    )  # fmt: skip


def _block(time: Fraction, duration: Fraction, data) -> tuple[bytes, object]:
    """Return a cluster of one frame, in two parts, since frames are large."""
    frame = _start("a1", 4 + memoryview(data).nbytes) + b"\x81\0\0\0"
    length = _number("9b", round(duration * 10**9))
    group = len(length) + len(frame) + memoryview(data).nbytes
    when = _number("e7", round(time * 10**9))
    whole = len(when) + len(_start("a0", group)) + group
    return _start("1f43b675", whole) + when + _start("a0", group) + length + frame, data


class Writer:
    """Encodes one segment of a film, video alone; the file appears under `path` when all went well.

    A context manager. Frames are of the size of `like`, RGB, 8 or 16 bits; where `like` has 8 bits the rest is rounded
    off. Times grow; they are kept to the multiple of `like.time_base` that is nearest. Frames are handed on by a
    thread: encoding overlaps with what the caller does. The same frames make the same bytes.
    """

    def __init__(self, path: str | os.PathLike, like: Info, encoding: Encoding):
        self.path, self.like, self.encoding = os.fsdecode(path), like, encoding
        self.count = 0
        self._deep = like.depth > 8
        self._first = self._last = None

    def __enter__(self) -> Writer:
        words = [*_input(self.like), "-vf", _conversion(self.like, self.encoding.pix_fmt)]
        words += [*_encoder(self.encoding, self.like), "-f", "nut", "pipe:1"]
        with contextlib.ExitStack() as stack:
            self._out = out = stack.enter_context(files.atomic(self.path))
            self._said = stack.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                [*video.ffmpeg(), "-v", "level+error", *words],
                stdin=subprocess.PIPE, stdout=out, stderr=self._said, bufsize=0, start_new_session=True,
            )  # fmt: skip
            video.widen(self._process.stdin)
            size = self.like.width * self.like.height * (6 if self._deep else 3)
            self._waiting: queue.Queue = queue.Queue(max(2, min(16, _WAITING // size)))
            self._thread = threading.Thread(target=self._hand_on, daemon=True)
            self._thread.start()
            self._stack = stack.pop_all()
        self._waiting.put((_header(self.like.width, self.like.height, self._deep), b""))
        return self

    def write(self, frame: Frame) -> None:
        """Take a frame. Raises DataError for one of another size; for those before, what leaving the context raises.

        ValueError where its time is not after the last one's.
        """
        array = streams.flat_rgb(frame.image)
        if array.shape[:2] != (self.like.height, self.like.width):
            size = f"{array.shape[1]}x{array.shape[0]}"
            raise errors.DataError(f"a frame of {size} pixels in a film of {self.like.width}x{self.like.height}")
        if self._last and frame.time <= self._last.time:
            raise ValueError(f"a frame at {frame.time} s after one at {self._last.time} s")
        self._first = frame.time if self._first is None else self._first
        self._last = Frame(None, frame.time, frame.duration)
        array = streams.to_16bit(array) if self._deep else streams.to_8bit(array)
        if not self._thread.is_alive():
            self._finish()
            raise errors.InputOutputError(f"{self.path}: ffmpeg has ended early")
        self._waiting.put(_block(frame.time, frame.duration, memoryview(np.ascontiguousarray(array)).cast("B")))
        self.count += 1

    def _hand_on(self) -> None:
        """Write what waits into the pipe, up to a None, or until nobody reads it."""
        pipe = self._process.stdin
        broken = False
        while (parts := self._waiting.get()) is not None:
            for part in () if broken else parts:
                try:
                    _put(pipe, part)
                except OSError:
                    broken = True  # ffmpeg is gone; it says why
                    break
            if broken and self._waiting.empty():
                break
        with contextlib.suppress(OSError):
            pipe.close()

    def _finish(self) -> None:
        """Wait for ffmpeg; raise what it complained of where it failed."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
        if self._process.wait():
            self._said.seek(0)
            _fail(self.path, self._said.read())
        if self._last:
            self._out.seek(0, os.SEEK_END)
            self._out.write(f"{self._first} {self._last.end}".encode().ljust(_TRAILER))

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None:
            self._process.kill()
            self._process.wait()
            while self._thread.is_alive():
                with contextlib.suppress(queue.Full):
                    self._waiting.put(None, timeout=0.05)
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:  # an error of ffmpeg takes the unfinished file away
            self._finish()


def _put(pipe, data) -> None:
    left = memoryview(data)
    while len(left):
        left = left[pipe.write(left) :]


def _fail(name: str, said: bytes) -> None:
    """Raise the error that ffmpeg printed when it could not write a file."""
    reason = video.first_reason(said.decode(errors="replace").splitlines()) or "ffmpeg was stopped"
    text = said.decode(errors="replace")
    if short := re.search("No space left on device|Disk quota exceeded|Cannot allocate memory", text):
        raise errors.TryAgain(f"{name}: {short[0].lower()}")
    if "Permission denied" in text:
        raise errors.NotPermitted(f"{name}: permission denied")
    raise errors.InputOutputError(f"{name}: {reason}")


def assemble(
    segments: Sequence[str | os.PathLike],
    source: str | os.PathLike | None,
    output: str | os.PathLike,
    encoding: Encoding,
    *,
    info: Info,
    start: Fraction | None = None,
    duration: Fraction | None = None,
    audio: bool = True,
) -> None:
    """Join finished segments to a film with all that `source`, the file that `info` tells of, has beside its video.

    Sound, subtitles, chapters, cover pictures, attachments, languages and tags come from `source`, cut to `start` and
    `duration` like the frames were; as they are where the container takes them, else in a codec that it takes; what it
    takes in none is named in a warning. The film appears when it is complete. Its frames have the times of the source's
    as exactly as the container counts (Matroska and WebM: milliseconds), and it ends when the last frame does.
    Raises CannotCreate, NotPermitted, TryAgain (disk full), InputOutputError.
    """
    name = os.fsdecode(output)
    if encoding.container in ("gif", "webp"):
        _animate(segments, name, encoding)
        return
    first, end = _told(segments[0])[0], _told(segments[-1])[1]
    lag = _lag(segments, name) if encoding.container in ("mp4", "mov") else None
    inputs = ["-itsoffset", video.seconds(first), "-f", "nut", "-i", "pipe:0"]
    taken = ["-map", "0:v:0", "-c:v:0", "copy", "-map_metadata", "-1"]
    if source is not None:
        inputs += ["-ss", video.seconds(start)] if start else []
        inputs += ["-t", video.seconds(duration)] if duration is not None else []
        inputs += ["-i", f"file:{os.path.abspath(os.fsdecode(source))}"]
        taken = ["-map", "0:v:0", "-c:v:0", "copy", "-map_metadata", "1", "-map_chapters", "1"]
        taken += ["-map_metadata:s:v:0", f"1:s:{info.index}", "-disposition:v:0", "default"]
        taken += [word for key in _STALE for word in ("-metadata:s:v:0", f"{key}=")]
        taken += _companions(os.fsdecode(source), name, info, encoding.container, audio)
        taken += ["-copypriorss", "0"] if start else []  # what is before the start is no part of the film
    film = [*_into(encoding), "-bsf:v:0", _durations(end, lag)]
    tags = (("colorspace", info.matrix), ("color_primaries", info.primaries), ("color_trc", info.transfer))
    # For codecs whose own bytes do not tell it.
    film += [word for key, value in tags if value and not info.is_rgb for word in (f"-{key}:v:0", value)]
    if encoding.container in ("mp4", "mov"):
        scale = info.time_base.denominator
        while scale < 10_000:  # frames that are coded out of order need times between those of the frames
            scale *= 2
        film += ["-video_track_timescale", str(scale), "-movflags", "+faststart"]
    with files.atomic(name, sync=True) as out:
        film += ["-t", video.seconds(duration)] if duration is not None else []  # for chapters
        film += ["-fflags", "+bitexact", "-f", encoding.container, "-y", f"file:{out.name}"]
        film += video.all_streams(1) if source is not None else []
        _run([*inputs, *taken, *film], segments, name)


def _told(segment: str | os.PathLike) -> tuple[Fraction, Fraction]:
    """Return when the first frame of a segment begins, and when its last one ends."""
    with _opened(segment) as data:
        data.seek(-_TRAILER, os.SEEK_END)
        first, end = data.read().split()
    return Fraction(first.decode()), Fraction(end.decode())


def _durations(end: Fraction, lag: Fraction | None = None) -> str:
    """Return the bitstream filter that makes a film end when its last frame does: NUT does not say how long that is.

    lag: for MP4, which counts from one coded frame to the next, by what the last one is decoded before it is shown. The
    first is decoded that much earlier, too; what ffmpeg guesses for it may be too late where the rate varies.
    """
    left, dts = f"{end.numerator}/{end.denominator}/TB-PTS", "DTS"
    if lag is not None:
        first = f"min(STARTDTS\\,STARTPTS-{lag.numerator}/{lag.denominator}/TB)"
        dts = f"if(eq(N\\,0)\\,{first}\\,DTS)"
        left = f"min({left}\\,{end.numerator}/{end.denominator}/TB-STARTPTS+{first}-DTS)"
    return f"setts=pts=PTS:dts={dts}:duration=max(0\\,{left})"


def _lag(segments: Sequence[str | os.PathLike], name: str) -> Fraction:
    """Return by how many seconds the last frame coded is decoded before it is shown."""
    words = ["-copyts", "-f", "nut", "-i", "pipe:0", "-map", "0:v:0", "-c", "copy", "-f", "framecrc", "pipe:1"]
    lines = _run(words, segments, name).decode().splitlines()
    base = next(Fraction(line.split()[-1]) for line in lines if line.startswith("#tb 0"))
    dts, pts = lines[-1].split(",")[1:3]
    return (int(pts) - int(dts)) * base


def _run(words: list[str], segments, name: str, **options) -> bytes:
    """Run ffmpeg with the segments as one NUT stream on its standard input; return what it wrote to the standard one.

    Raises the error of a file `name` that could not be written.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as made:
        process = subprocess.Popen(
            [*video.ffmpeg(), "-v", "level+error", *words],
            stdin=subprocess.PIPE, stdout=made, stderr=said, bufsize=0, start_new_session=True, **options,
        )  # fmt: skip
        try:
            video.widen(process.stdin)
            with contextlib.suppress(BrokenPipeError):  # it tells why it stopped reading
                for number, segment in enumerate(segments):
                    with _opened(segment) as data:
                        left = os.fstat(data.fileno()).st_size - _TRAILER
                        if number:
                            left -= data.seek(len(_SIGNATURE))
                        while left:
                            chunk = data.read(min(left, 1 << 20))
                            left -= len(chunk)
                            _put(process.stdin, chunk)
            process.stdin.close()
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        if status:
            _fail(name, said.read())
        made.seek(0)
        return made.read()


def _opened(path):
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise errors.from_os_error(error, os.fsdecode(path)) from error


def _companions(source: str, name: str, like: Info, container: str, audio: bool) -> list[str]:
    """Return the options that take what a source has beside its video into a container; warn of what is lost."""
    rest = [each for each in like.streams if each.kind != "video" or each.cover]
    rest = [each for each in rest if audio or each.kind != "audio"]
    lost = [f"video {each.index}" for each in like.of_kind("video") if each.index != like.index]
    words, count = [], 1
    whole = _takes(source, container, [(each, "copy") for each in rest])
    for each in rest:
        how = "copy" if whole else _how(source, container, each)
        if how is None:
            lost.append(f"{'cover picture' if each.cover else each.kind} {each.index} ({each.codec})")
            continue
        words += ["-map", f"1:{each.index}", f"-map_metadata:s:{count}", f"1:s:{each.index}"]
        words += [f"-c:{count}", how] if how else []
        count += 1
    if lost:
        log.warning(f"{name}: without what .{container} cannot hold: {', '.join(lost)}")
    return words


def _how(source: str, container: str, stream: video.Stream) -> str | None:
    """Return the encoder by which a stream fits a container: "copy", "" for its own default, None for none."""
    if _takes(source, container, [(stream, "copy")]):
        return "copy"
    if stream.kind == "audio" and _takes(source, container, [(stream, "")]):
        return ""
    if stream.kind == "subtitle" and stream.codec not in _BITMAPS and container in _SUBTITLES:
        return _SUBTITLES[container]
    return None


def _takes(source: str, container: str, given: list[tuple[video.Stream, str]]) -> bool:
    """Tell whether ffmpeg begins a file of a container with these streams."""
    if not given:
        return True
    words = []
    for number, (stream, how) in enumerate(given):
        words += ["-map", f"0:{stream.index}"] + ([f"-c:{number}", how] if how else [])
    encodes = any(not how for _, how in given)
    # Sound has to arrive before its encoder is opened; what is copied has not.
    cut = ["-t", "0.5" if encodes else "0"]
    words = [*cut, "-i", f"file:{os.path.abspath(source)}", *words, "-f", container, "-y", os.devnull]
    done = subprocess.run(
        [*video.ffmpeg(), "-v", "error", *words], stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True
    )
    return done.returncode == 0


def _animate(segments, name: str, encoding: Encoding) -> None:
    """Make an animated GIF, with one palette for all its frames, or WebP, of lossless segments."""
    inputs = ["-copyts", "-f", "nut", "-i", "pipe:0"]
    with files.atomic(name) as out, contextlib.ExitStack() as stack:
        target = ["-fflags", "+bitexact", "-loop", "0", "-f", encoding.container, "-y", f"file:{out.name}"]
        keep = ["-fps_mode", "passthrough", "-enc_time_base", "1:100" if encoding.container == "gif" else "1:1000"]
        keep += ["-flags:v", "+bitexact"]
        first, end = _told(segments[0])[0], _told(segments[-1])[1]
        if encoding.container == "webp":
            _run([*inputs, *keep, "-c:v", "libwebp_anim", "-quality", "90", *target], segments, name)
            _end_webp(out.name, round((end - first) * 1000))
            return
        palette = _run(
            [*inputs, "-vf", "palettegen=reserve_transparent=0", "-f", "image2pipe", "-c:v", "png", "pipe:1"],
            segments, name,
        )  # fmt: skip
        readable, writable = os.pipe()
        stack.callback(os.close, readable)
        with open(writable, "wb") as pipe:
            pipe.write(palette)  # about a kilobyte, which a pipe holds without a reader
        inputs += ["-f", "png_pipe", "-i", f"pipe:{readable}"]
        mapped = ["-filter_complex", "[0:v][1:v]paletteuse=dither=sierra2_4a:diff_mode=rectangle", "-c:v", "gif"]
        keep += ["-bsf:v", _durations(end)]
        _run([*inputs, *mapped, *keep, *target], segments, name, pass_fds=(readable,))


def _end_webp(path: str, length: int) -> None:
    """Make the last frame of an animated WebP last until `length` milliseconds: its encoder took a mean duration."""
    with open(path, "r+b") as data:
        size, place, shown, last = os.fstat(data.fileno()).st_size, 12, 0, None
        while place + 8 <= size:
            data.seek(place)
            kind, count = struct.unpack("<4sI", data.read(8))
            if kind == b"ANMF":
                shown += last[1] if last else 0
                data.seek(place + 20)
                last = place + 20, int.from_bytes(data.read(3), "little")
            place += 8 + count + count % 2
        if last:
            data.seek(last[0])
            data.write(max(0, length - shown).to_bytes(3, "little"))


class Pictures:
    """Writes frames as numbered pictures (frame-%06d.png), each complete or not there, with the interface of `Writer`.

    The first is called `number`. Raises UsageError for an extension of no picture format; the rest as `files.atomic`.
    """

    def __init__(self, pattern: str | os.PathLike, number: int = 1):
        self.pattern, self.count, self._number = os.fsdecode(pattern), 0, number
        self._format = streams.by_extension(Path(self.pattern).suffix)
        if self._format is None or streams.kind(self._format) != "image":
            raise errors.UsageError(f"{self.pattern}: %d numbers pictures, and this is not the extension of a picture")

    def __enter__(self) -> Pictures:
        return self

    def write(self, frame: Frame) -> None:
        """Write a frame into the next file; its time is not kept."""
        path = video.NUMBER.sub(lambda found: str(self._number + self.count).zfill(int(found[1] or 0)), self.pattern)
        with files.atomic(path) as out, streams.writer(out, self._format) as writer:
            writer.write(frame.image)
        self.count += 1

    def __exit__(self, kind, error, traceback) -> None:
        pass
