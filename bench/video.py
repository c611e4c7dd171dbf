"""Time of restyling a film as a program, over bare ffmpeg and over frame-by-frame st-apply. JSON lines, ratios first.

    python bench/video.py [CLIP] [--style great-wave] [--size 512] [--seconds 4]

Without a clip, ffmpeg's test pattern with a tone. Every figure is frames a second of wall time, the start of the
program taken off (that of one frame), the best of several runs, all in one go on the same machine: `ffmpeg` decodes and
encodes the clip with the codec and quality that st-video takes; `pipe` is ffmpeg | st-apply | ffmpeg, frame by frame.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path

import click

BIN = Path(__file__).parents[1] / "bin"


def fastest(repeat: int, *lines: str) -> float:
    """Run a line of bash some times; return the seconds that the fastest took, less those of a second line."""
    found = []
    for line in lines:
        times = []
        for _ in range(repeat):
            began = time.perf_counter()
            subprocess.run(["bash", "-e", "-o", "pipefail", "-c", line], check=True)
            times.append(time.perf_counter() - began)
        found.append(min(times))
    return found[0] - sum(found[1:])


@click.command()
@click.argument("clip", required=False, type=click.Path(exists=True))
@click.option("--style", default="great-wave", show_default=True)
@click.option("--size", default=512, show_default=True, help="Short side of the frames.")
@click.option("--seconds", default=4.0, show_default=True, help="How much of the clip.")
@click.option("--repeat", default=2, show_default=True)
def main(clip, style, size, seconds, repeat):
    """Measure and print."""
    import imageio_ffmpeg

    ffmpeg = f"{imageio_ffmpeg.get_ffmpeg_exe()} -v error -y"
    codec = "-c:v libx264 -preset fast -crf 18 -threads 8"
    with tempfile.TemporaryDirectory() as folder:
        given = f"-i {clip}" if clip else "-f lavfi -i testsrc2=size=1280x720:rate=25 -f lavfi -i sine"
        scaled = rf"-vf scale=-2:{size}"
        for name, length in (("all", seconds), ("one", 0.01)):
            fastest(1, f"{ffmpeg} {given} -t {length} {scaled} {codec} {folder}/{name}.mp4")
        from styletools.engine import video

        count = sum(1 for _ in video.read(f"{folder}/all.mp4")) - sum(1 for _ in video.read(f"{folder}/one.mp4"))

        def rate(line: str) -> float:
            return count / fastest(repeat, line.format(f"{folder}/all.mp4"), line.format(f"{folder}/one.mp4"))

        bare = rate(f"{ffmpeg} -i {{}} {codec} -c:a copy {folder}/out.mp4")
        pipe = rate(f"{ffmpeg} -i {{}} -f yuv4mpegpipe - | {BIN}/st-apply -s {style} |"
                    f" {ffmpeg} -i - {codec} {folder}/out.mp4")  # fmt: skip
        plain, steady = (rate(f"{BIN}/st-video -s {style} --steady {x} --overwrite {{}} -o {folder}/out.mp4")
                         for x in (0, 0.5))  # fmt: skip
    for name, found in (("ffmpeg", bare), ("pipe of st-apply", pipe)):
        for label, own in (("st-video", steady), ("st-video --steady 0", plain)):
            print(json.dumps({"figure": f"{label} over {name}", "ratio": round(own / found, 3),
                              "frames_per_second": round(own, 2), "other": round(found, 2), "size": size}))  # fmt: skip


if __name__ == "__main__":
    main()
