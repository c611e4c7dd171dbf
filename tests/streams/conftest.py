"""ffmpeg, the partner that the image streams are tested with."""

import subprocess

import pytest


@pytest.fixture(scope="session")
def ffmpeg():
    """Run ffmpeg with arguments and input; return what it prints to standard output."""
    program = pytest.importorskip("imageio_ffmpeg", reason="needs ffmpeg from imageio-ffmpeg").get_ffmpeg_exe()

    def run(*arguments, data=None):
        command = [program, "-v", "error", "-threads", "1", *arguments]
        done = subprocess.run(command, input=data, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run
