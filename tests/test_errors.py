"""The error tree and what operating system errors become."""

import errno
import os
import re

import pytest

from styletools import errors


def test_table_in_the_docstring_is_the_truth():
    listed = dict(re.findall(r"─ (\w+) +(\d+) ", errors.__doc__))
    classes = {c.__name__: str(c.status) for c in errors.StyletoolsError.__subclasses__()}
    assert listed == classes
    assert errors.StyletoolsError.status == 70


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, errors.MissingInput),
        (errno.EACCES, errors.NotPermitted),
        (errno.EPERM, errors.NotPermitted),
        (errno.EROFS, errors.CannotCreate),
        (errno.EISDIR, errors.DataError),
        (errno.ENOTDIR, errors.MissingInput),
        (errno.ENAMETOOLONG, errors.MissingInput),
        (errno.ENOSPC, errors.TryAgain),
        (errno.EDQUOT, errors.TryAgain),
        (errno.EMFILE, errors.TryAgain),
        (errno.EIO, errors.InputOutputError),
        (errno.ENXIO, errors.InputOutputError),
    ],
)
def test_os_errors_become_ours(number, kind):
    error = errors.from_os_error(OSError(number, os.strerror(number), "a.png"))
    assert type(error) is kind
    assert str(error) == f"a.png: {os.strerror(number).lower()}"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG])
def test_an_output_that_has_no_place_cannot_be_created(number):
    made = errors.from_os_error(OSError(number, os.strerror(number), "a.png"), output=True)
    assert type(made) is errors.CannotCreate
    kept = errors.from_os_error(OSError(errno.EACCES, "Permission denied", "a.png"), output=True)
    assert type(kept) is errors.NotPermitted


def test_os_error_is_named_by_the_caller_first():
    assert str(errors.from_os_error(OSError(errno.EIO, "Input/output error", "b"), "a")) == "a: input/output error"
    assert str(errors.from_os_error(OSError("something odd"))) == "something odd"


def test_real_os_errors(tmp_path):
    with pytest.raises(OSError) as caught:
        os.stat(tmp_path / "none")
    assert str(errors.from_os_error(caught.value)) == f"{tmp_path / 'none'}: no such file or directory"
    with pytest.raises(OSError) as caught:
        os.open(tmp_path, os.O_WRONLY)
    assert isinstance(errors.from_os_error(caught.value, output=True), errors.CannotCreate)


def test_out_of_memory_is_known_by_its_look():
    import torch

    assert errors.is_out_of_memory(MemoryError())
    assert errors.is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert not errors.is_out_of_memory(RuntimeError("size mismatch"))
    assert not errors.is_out_of_memory(ValueError("can't allocate memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert errors.is_out_of_memory(caught.value)
