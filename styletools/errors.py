"""The errors that users see, and the exit status of each.

    StyletoolsError              70   our bug (also: any exception not listed here)
    ├── SomeFailed                1   the batch was done, some records failed
    ├── UsageError                2   the command line is wrong
    ├── DataError                65   input that cannot be understood
    ├── MissingInput             66   an input file is not there
    ├── Unavailable              69   device, optional package or network not to be had
    ├── CannotCreate             73   an output cannot be created
    ├── InputOutputError         74   reading or writing failed
    ├── TryAgain                 75   out of memory, disk full
    ├── NotPermitted             77   permission denied
    └── DoesNotFit               78   a model, style or statistics that do not fit together

Signals end a command by that signal (130, 141, 143 in the shell) after it has cleaned up.
Standard library only.
"""

import errno


class StyletoolsError(Exception):
    """An error told to the user in one line; `status` is the exit status of the command."""

    status = 70


class SomeFailed(StyletoolsError):
    """The work went on to its end, but some records failed."""

    status = 1


class UsageError(StyletoolsError):
    """The command line cannot be meant."""

    status = 2


class DataError(StyletoolsError):
    """Input bytes that are damaged, of an unknown format, or over a limit."""

    status = 65


class MissingInput(StyletoolsError):
    """An input file that does not exist."""

    status = 66


class Unavailable(StyletoolsError):
    """A device, an optional package, a download or published weights that are not to be had."""

    status = 69


class CannotCreate(StyletoolsError):
    """An output that cannot be created where it was asked for."""

    status = 73


class InputOutputError(StyletoolsError):
    """The operating system failed to read or write."""

    status = 74


class TryAgain(StyletoolsError):
    """No memory or no disk space now; the same command may succeed later."""

    status = 75


class NotPermitted(StyletoolsError):
    """The operating system refused access."""

    status = 77


class DoesNotFit(StyletoolsError):
    """A model, a style record or statistics made for something else."""

    status = 78


_BY_ERRNO = {
    errno.ENOENT: MissingInput,
    errno.ENOTDIR: MissingInput,
    errno.ENAMETOOLONG: MissingInput,
    errno.EISDIR: DataError,
    errno.EACCES: NotPermitted,
    errno.EPERM: NotPermitted,
    errno.EROFS: CannotCreate,
    errno.EEXIST: CannotCreate,
    errno.ENOSPC: TryAgain,
    errno.EDQUOT: TryAgain,
    errno.ENOMEM: TryAgain,
    errno.EMFILE: TryAgain,
    errno.EAGAIN: TryAgain,
}


def from_os_error(error: OSError, name: str = "", *, output: bool = False) -> StyletoolsError:
    """Return the error of this tree that an `OSError` stands for, worded `name: what is wrong`.

    `name` defaults to the file name that the operating system reported. `output` says that a file was to be made:
    what would be an input that is not there is then an output that cannot be created.
    """
    name = name or str(error.filename or "")
    kind = _BY_ERRNO.get(error.errno, InputOutputError)
    if output and kind in (MissingInput, DataError):
        kind = CannotCreate
    what = (error.strerror or str(error)).lower()
    return kind(f"{name}: {what}" if name else what)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out, without importing torch to know its classes."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def of_status(status: int, message: str) -> StyletoolsError:
    """Return the error of an exit status, as another process of ours reported it."""
    kinds = {kind.status: kind for kind in StyletoolsError.__subclasses__()}
    return kinds.get(status, StyletoolsError)(message)
