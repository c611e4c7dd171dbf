"""What tests of videos share: ffmpeg, and clips of many kinds that it makes."""

import subprocess

import pytest

RATE = "30000/1001"
SOURCE = ["-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={RATE}", "-t", "0.8"]
# Kind of clip -> its extension and what makes it.
CLIPS = {
    "ntsc": ("mp4", [*SOURCE, "-pix_fmt", "yuv420p"]),
    "uneven": ("mp4", [*SOURCE, "-vf", r"select=not(mod(n\,3))+not(mod(n\,7))", "-fps_mode", "passthrough",
                       "-enc_time_base", "1:30000", "-pix_fmt", "yuv420p"]),
    "odd": ("webm", [*SOURCE, "-vf", "format=yuv444p,crop=95:63", "-pix_fmt", "yuv420p", "-deadline", "realtime"]),
    "full-chroma": ("mkv", [*SOURCE, "-pix_fmt", "yuv444p"]),
    "ten-bit": ("mp4", [*SOURCE, "-vf", "scale=out_color_matrix=bt2020:out_range=tv,format=yuv420p10le,setparams="
                        "range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc=arib-std-b67"]),
    "full-range": ("mp4", [*SOURCE, "-vf", "scale=out_color_matrix=bt709:out_range=pc,format=yuv420p,setparams="
                           "range=pc:colorspace=bt709:color_primaries=bt709:color_trc=bt709,setsar=4/3"]),
    "bt601": ("mp4", [*SOURCE, "-vf", "scale=out_color_matrix=bt601:out_range=tv,format=yuv422p,setparams="
                      "range=tv:colorspace=smpte170m:color_primaries=smpte170m:color_trc=smpte170m"]),
    "one": ("mp4", [*SOURCE, "-frames:v", "1", "-pix_fmt", "yuv420p"]),
    "late": ("mp4", ["-itsoffset", "0.2", *SOURCE, "-f", "lavfi", "-i", "sine", "-t", "1", "-pix_fmt", "yuv420p"]),
    "broadcast": ("ts", [*SOURCE, "-f", "lavfi", "-i", "sine", "-t", "0.8", "-pix_fmt", "yuv420p"]),
}  # fmt: skip


@pytest.fixture(scope="session")
def ffmpeg():
    """Run ffmpeg with arguments and input; what it wrote to its standard output."""
    import imageio_ffmpeg

    def run(*arguments, data=None) -> bytes:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-threads", "1", *map(str, arguments)]
        return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout

    return run


@pytest.fixture(scope="session")
def clips(ffmpeg, tmp_path_factory):
    """Clips by kind: those of CLIPS, one turned by a phone, one with all that a film may have beside pictures."""
    folder = tmp_path_factory.mktemp("clips")
    made = {}
    for name, (extension, words) in CLIPS.items():
        made[name] = folder / f"{name}.{extension}"
        ffmpeg(*words, made[name])
    made["turned"] = folder / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", made["ntsc"], "-c", "copy", made["turned"])
    (folder / "s.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nhello\n")
    (folder / "m.txt").write_text(
        ";FFMETADATA1\ntitle=My film\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=400\ntitle=one\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=400\nEND=800\ntitle=two\n"
    )
    made["whole"] = folder / "whole.mkv"
    rising = "aevalsrc=sin(2*PI*(200+1500*t)*t):s=44100"
    sound = ["-f", "lavfi", "-i", rising, "-f", "lavfi", "-i", "sine=880"]
    ffmpeg(
        *SOURCE, *sound, "-i", folder / "s.srt", "-i", folder / "m.txt",
        "-map", "0", "-map", "1", "-map", "2", "-map", "3", "-t", "0.8", "-map_metadata", "4",
        "-pix_fmt", "yuv420p", "-c:a", "aac", "-c:s", "srt", "-metadata:s:a:0", "language=deu",
        "-metadata:s:a:1", "language=fra", "-metadata:s:s:0", "language=eng", made["whole"],
    )  # fmt: skip
    return made
