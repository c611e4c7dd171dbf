"""Video files as streams of pictures, through the ffmpeg that imageio-ffmpeg brings."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator

from styletools import errors, log, streams

EXTENSIONS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".ts", ".mts", ".m2ts",
    ".3gp", ".gif",
)  # fmt: skip


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


def frames(path: str | os.PathLike) -> Iterator[streams.Image]:
    """Yield the frames of a video file as pictures, 8-bit RGB, upright, called 000001, 000002 and so on.

    Frames are those that the file holds, each once, whatever their times. ffmpeg ends with the iterator. Raises
    MissingInput, NotPermitted and their like where the file cannot be opened, and DataError, after the frames before,
    where ffmpeg gives up or finds no frame; what it complains of and survives is a warning.
    """
    name = os.fsdecode(path)
    try:
        open(name, "rb").close()
    except OSError as error:
        raise errors.from_os_error(error, name) from error
    with tempfile.TemporaryFile() as said:
        # With "file:" a name is taken neither for an option nor for one of ffmpeg's protocols.
        given = ["-i", f"file:{os.path.abspath(name)}", "-map", "0:v:0", "-fps_mode", "passthrough"]
        made = ["-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "pipe:1"]
        command = [_program(), "-nostdin", "-v", "error", *given, *made]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, bufsize=0)
        number, cut = 0, None
        try:
            try:
                for frame in streams.read(process.stdout, format="ppm", stream=True):
                    number += 1
                    frame.name = f"{number:06d}"
                    yield frame
            except errors.DataError as error:
                cut = error  # ffmpeg ended in the middle of a frame: it tells why
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        reason = _reason(said)
        if status or cut or not number:
            raise errors.DataError(f"{name}: {reason or cut or 'holds no picture'}") from cut
        if reason:
            log.warning(f"{name}: {reason}")


def _program() -> str:
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise errors.Unavailable(f"no ffmpeg: {str(error).splitlines()[0]}") from error


def _reason(said) -> str:
    """Return the first line that ffmpeg printed, the cause of all others, without the part that it came from."""
    said.seek(0)
    line = said.readline().decode(errors="replace").strip()
    return log.printable(re.sub(r"^(\[[^]]*\] )+", "", line))[:300]
