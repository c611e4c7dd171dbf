"""st-video: restyle films."""

import contextlib
import dataclasses
import os
import re
import sys
from fractions import Fraction
from pathlib import Path

import click

from styletools import __version__, errors, files, log, streams
from styletools.cli import _options, _restyling
from styletools.cli._command import command
from styletools.cli._loop import STDIN, Target

STEADY = 0.5
PICTURES = (".png", ".jpg", ".jpeg")  # what a contact sheet alone may be written as
_UNITS = {"": 1, "s": 1, "ms": Fraction(1, 1000), "m": 60, "h": 3600}


def _time(text: str) -> Fraction:
    """Return 12, 12.5, 12.5s, 300ms, 2m, 1:02:03.5 as seconds. Raises ValueError for anything else."""
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)(|s|ms|m|h)", text):
        return Fraction(found[1]) * _UNITS[found[2]]
    if re.fullmatch(r"(?:\d+:)?\d+:\d+(?:\.\d+)?", text):
        seconds = Fraction(0)
        for part in text.split(":"):
            seconds = 60 * seconds + Fraction(part)
        return seconds
    raise ValueError(text)


class _Time(click.ParamType):
    """A time, or a length of time, in a film."""

    name = "time"

    def convert(self, value, parameter, context):
        try:
            return value if isinstance(value, Fraction) else _time(value)
        except ValueError:
            raise errors.UsageError(f"{parameter.opts[0]} {value}: 12.5, 12.5s, 2m or 1:02:03 expected") from None


def _rate(context, parameter, value) -> Fraction | None:
    """Return 25, 29.97 or 30000/1001 as a fraction."""
    if value is None:
        return None
    try:
        rate = Fraction(value.replace(":", "/"))
        if not 0 < rate <= 1000:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise errors.UsageError(f"--rate {value}: frames a second expected, as 25, 29.97 or 30000/1001") from None
    return rate


def _encoder_options(context, parameter, value) -> list[tuple[str, str]]:
    """Return KEY=VALUE words as pairs."""
    for word in value:
        if not re.fullmatch(r"[A-Za-z][\w:-]*=.*", word):
            raise errors.UsageError(f"-e {word}: KEY=VALUE expected, an option of the encoder, as preset=slow")
    return [tuple(word.split("=", 1)) for word in value]


def _course(specs) -> list[tuple[Fraction, list[str]]]:
    """Return the styles of -s by the times of their `@TIME`: [(seconds, [STYLE[:WEIGHT], ...]), ...]."""
    from styletools.engine import styles

    timed: dict[Fraction, list[str]] = {}
    plain = []
    for part in (part for spec in specs for part in styles.split(spec)):
        name, at, time = part.rpartition("@")
        if not at or os.path.exists(part) or os.path.exists(files.split_weight(part)[0]):
            plain.append(part)
            continue
        try:
            timed.setdefault(_time(time), []).append(name)
        except ValueError:
            raise errors.UsageError(f"-s {part}: after @ a time is expected, as 5s or 1:30") from None
    if timed and plain:
        raise errors.UsageError(f"-s {plain[0]}: either all styles have a time (@5s) or none")
    return sorted(timed.items()) or [(Fraction(0), plain)]


def _kind(output: str, preview: int | None) -> str:
    """Return what is to be made: a "film" in a file, a "stream" of y4m, numbered "pictures", or a "sheet" alone.

    Raises UsageError for a folder, for a picture that is no contact sheet, and for a film that is to go into a pipe.
    """
    from styletools.engine import video

    suffix = os.path.splitext(output)[1].lower()
    if output == STDIN or suffix == ".y4m":
        return "stream"
    if output.endswith(os.sep) or os.path.isdir(output):
        raise errors.UsageError(f"{output}: is a folder: name a film, or {os.path.join(output, 'frame-%06d.png')}")
    if len(video.NUMBER.findall(os.path.basename(output))) == 1:
        return "pictures"
    if suffix in PICTURES:
        if not preview:
            raise errors.UsageError(f"{output}: a film is no picture: --preview N makes a contact sheet of one")
        return "sheet"
    if os.path.exists(output) and not os.path.isfile(output):
        raise errors.UsageError(f"{output}: is no regular file: what goes through pipes is y4m, with -o -")
    return "film"


def _beside(output: str) -> str:
    """Return where the contact sheet of a film goes."""
    return f"{os.path.splitext(output)[0].replace('%', '')}.preview.png"


def _set_up(choice, device: str, limits, *, frame_by_frame: bool):
    """Return what restyles frames, and the styles over time; without torch where each frame stands for itself."""
    if frame_by_frame and len(choice.keys) == 1:
        from styletools.engine import graph

        try:
            return choice.set_up_graph(device, limits), []
        except graph.NotPossible as why:
            log.info(f"restyled by torch: {why}")
    return choice.set_up(device, limits)


@contextlib.contextmanager
def _writer(output: str, kind: str, info):
    """Within, what writes frames one by one: into numbered pictures, or as y4m."""
    from styletools.engine import mux

    if kind == "pictures":
        with mux.Pictures(output) as writer:
            yield writer.write
        return
    opened = contextlib.nullcontext(sys.stdout.buffer) if output == STDIN else files.atomic(output)
    with opened as out, streams.writer(out, "y4m", rate=f"{info.rate.numerator}:{info.rate.denominator}") as writer:
        aspect = f"{info.aspect.numerator}:{info.aspect.denominator}" if info.aspect else "1:1"

        def write(frame) -> None:
            frame.image.meta.setdefault("aspect", aspect)
            writer.write(frame.image)

        yield write


@command("st-video")
@click.argument("source", metavar="[FILM|PATTERN|-]", default=STDIN, type=_options.PATH)
@_restyling.options
@click.option("-o", "--output", metavar="FILM|PATTERN|-", default=STDIN, help="Where the film goes: a file (mp4, mkv, "
              "mov, webm, gif, webp, ...), numbered pictures (frame-%06d.png), or - (default): y4m.")  # fmt: skip
@click.option("--steady", metavar="X", type=click.FloatRange(0, 1), default=STEADY, show_default=True,
              help="How steady: 0 restyles frame by frame, 1 keeps most of the frame before.")  # fmt: skip
@click.option("--flow", metavar="HOW", type=click.Choice(["plain", "raft"]), default="plain", show_default=True,
              help="What follows motion: plain, or raft, a network with weights of its own.")  # fmt: skip
@click.option("--start", metavar="TIME", type=_Time(), help="Begin here (12.5, 90s, 1:30).")
@click.option("--duration", metavar="TIME", type=_Time(), help="Make this much of it.")
@click.option("--rate", metavar="R", callback=_rate,
              help="Frames a second of pictures, numbered or on a pipe (25).")  # fmt: skip
@click.option("--codec", metavar="NAME", help="ffmpeg's encoder (libx264; for webm libvpx-vp9).")
@click.option("--crf", metavar="N", type=click.IntRange(0, 63), help="Quality: lower is better and larger (18).")
@click.option("-e", "--encoder", "encoder", metavar="KEY=VALUE", multiple=True, callback=_encoder_options,
              help="An option of the encoder, as preset=slow; may be repeated.")  # fmt: skip
@click.option("--preview", metavar="N", type=click.IntRange(1, 100), help="A contact sheet of N frames before and "
              "after: X.preview.png beside a film X.mp4; with -o X.png, nothing else.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on where an earlier run with this -o ended, if there was one.")
@click.option("--overwrite", is_flag=True, help="Begin anew where an earlier run with this -o was not finished.")
@click.option("--segment", metavar="N", type=_options.Count(), default=240, show_default=True,
              help="Frames that are encoded and kept together: a killed job loses fewer than these.")  # fmt: skip
@_options.device
@_options.max_pixels
def main(
    source, output, steady, flow, start, duration, rate, codec, crf, encoder, preview, resume, overwrite, segment,
    device, max_pixels, **look,
):  # fmt: skip
    """Restyle a film, steadily, and keep its sound.

    st-video -s hokusai.jpg holiday.mp4 -o woodcut.mp4

    Subtitles, chapters and the times of the frames are kept, too. -s a.jpg@0,b.jpg@5s fades from one style to
    another. Through pipes goes y4m.
    """
    if steady != steady:
        raise errors.UsageError("--steady nan: a number from 0 to 1 expected")
    if resume and overwrite:
        raise errors.UsageError("--resume goes on, --overwrite begins anew: only one of them can be meant")
    kind = _kind(output, preview)
    if kind != "film" and (codec or crf is not None or encoder or resume or overwrite):
        raise errors.UsageError("--codec, --crf, -e, --resume and --overwrite are for films in files")
    if source == STDIN and files.is_terminal(sys.stdin):
        raise errors.UsageError("standard input is a terminal: name a film, or pipe one in")
    if output == STDIN and files.is_terminal(sys.stdout):
        raise errors.UsageError("standard output is a terminal: -o FILM, or pipe it on")
    if source != STDIN and os.path.exists(output) and os.path.exists(source) and os.path.samefile(source, output):
        raise errors.UsageError(f"{output}: is the film itself: name another output")
    if preview and STDIN in (source, output):
        raise errors.UsageError("--preview needs a film in a file, not a pipe")
    if duration == 0:
        raise errors.UsageError("--duration 0: there is no film of no length")
    choice = _restyling.choose(**look, course=_course)
    if source == STDIN:
        _restyling.check_standard_input(choice)
    for path in [output, *([_beside(output)] if preview and kind != "sheet" else [])] if output != STDIN else []:
        if kind != "pictures":
            Target(path, None if kind == "sheet" or path != output else "y4m").check()
    limits = streams.Limits(max_pixels=max_pixels)

    from styletools.engine import film, mux

    opened = film.open_source(
        None if source == STDIN else source, start=start, duration=duration, rate=rate, limits=limits
    )
    if opened is None:
        if kind != "stream":
            raise errors.DataError("<stdin>: is empty")
        return
    info = opened.info
    size = streams.scaled((info.height, info.width), choice.size)
    if choice.size and kind == "film":  # most players want even sides
        size = tuple(-(-side // 2) * 2 for side in size)
    limits.check_size(size[1], size[0])
    sheet = film.Sheet(preview, opened.length or Fraction(0)) if preview else None
    total = round(opened.length * info.rate) if opened.length is not None else None
    bar = log.Progress(total, "frame")
    with contextlib.ExitStack() as stack:
        stack.callback(bar.close)
        if kind == "film":
            encoding = mux.plan(output, mux.resized(info, *size), codec=codec, crf=crf, options=encoder)
            recipe = choice.recipe() | {
                "source": opened.identity(), "steady": steady, "flow": flow, "encoding": dataclasses.asdict(encoding),
                "segment": segment, "version": __version__,
            }  # fmt: skip
            segments = film.Segments(Path(output), recipe, resume=resume, overwrite=overwrite)
            stack.enter_context(segments)
        restyler, course = _set_up(choice, device, limits, frame_by_frame=not steady or kind == "sheet")
        restyler.size = size
        seen = film.Look(restyler, film.Course(course) if len(course) > 1 else None, steady, flow)
        shown = sheet.add if sheet else lambda before, after: None
        if kind == "film":
            film.make(opened, Path(output), encoding, seen, segments, size, shown, bar, length=segment)
        elif kind == "sheet":
            film.look_through(opened, seen, sheet)
        else:
            writer = stack.enter_context(_writer(output, kind, info))
            film.stream(opened, writer, seen, shown, bar)
        if sheet:
            path = output if kind == "sheet" else _beside(output)
            with files.atomic(path) as out, streams.writer(out, streams.by_extension(Path(path).suffix)) as target:
                target.write(sheet.picture())
