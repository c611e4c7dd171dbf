"""What every command has: -h, --version, -v, -q, --json, and the one place that turns errors into exits."""

import contextlib
import functools
import io
import os
import shlex
import signal
import sys
import traceback

import click

from styletools import __version__, errors, files, log


def command(name: str):
    """Make a click command of a function that returns its exit status; None is 0.

    The function gets the options that it declares; the common ones are taken care of here. What it raises
    ends the command: an error of `errors` with its one line and its status, anything else as a bug (70).
    """

    return functools.partial(_make, name, click.command)


def group(name: str, **settings):
    """Make a group of sub-commands of a function, to the like of `command`; `made.command(...)` adds one.

    settings: click's, as invoke_without_command.
    """
    return functools.partial(_make, name, functools.partial(click.group, no_args_is_help=False, **settings))


def _make(name: str, kind, function):
    @functools.wraps(function)
    def body(*, verbose, quiet, json_lines, **options):
        log.setup(name, as_json=json_lines, quiet=quiet, verbose=verbose)
        status = function(**options)
        if status:
            raise click.exceptions.Exit(status)

    for decorator in (_json_lines, _quiet, _verbose, click.version_option(__version__, "--version", prog_name=name)):
        body = decorator(body)
    made = kind(name, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})(body)
    made.main = functools.partial(_run, name, made.main)
    return made


def arrange(command: click.Command, sections: dict[str, str]) -> None:
    """Show the options of a command in sections, {title: names between spaces}; the rest comes last."""

    def format_options(context, formatter):
        told = {option.opts[-1].lstrip("-"): option.get_help_record(context) for option in command.get_params(context)}
        for title, names in sections.items():
            with formatter.section(title):
                formatter.write_dl([told.pop(name) for name in names.split()])
        with formatter.section("Others"):
            formatter.write_dl([record for record in told.values() if record and record[1]])

    command.format_options = format_options


_verbose = click.option("-v", "--verbose", is_flag=True, help="Tell what is done; tracebacks with errors.")
_quiet = click.option("-q", "--quiet", is_flag=True, help="No progress and no warnings.")
_json_lines = click.option("--json", "json_lines", is_flag=True, help="Messages and progress as JSON lines.")


_words: list[str] = []


def command_line() -> str:
    """Return the command that runs now as one would type it, for the records of where a file came from."""
    return shlex.join(_words)


def _run(name: str, click_main, args=None, **unused) -> None:
    """Run a command in this process and end the process with the right status or signal."""
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What is written may come from files and their names; as an escape, what is no character does no harm.
        sys.stdout.reconfigure(errors="backslashreplace")
    log.setup(name)
    _words[:] = [name, *(sys.argv[1:] if args is None else args)]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and the shell's & want it
            signal.signal(number, _on_signal)
    status = 0
    try:
        # Out of standalone mode, click returns the status that the body raised Exit with.
        status = click_main(args=args, prog_name=name, standalone_mode=False) or 0
        sys.stdout.flush()
    except click.ClickException as error:
        hint = f" (try {name} --help)" if isinstance(error, click.UsageError) else ""
        message = " ".join(error.format_message().split()).rstrip(".")
        log.error(f"{message}{hint}", status=errors.UsageError.status)
        status = errors.UsageError.status
    except (BrokenPipeError, SystemExit):
        # Out of standalone mode, click exits for one reason only: it caught the EPIPE of a closed pipe.
        _end_by(signal.SIGPIPE)
    except (KeyboardInterrupt, click.Abort):
        _end_by(signal.SIGINT)
    except Signalled as error:
        _end_by(error.number)
    except errors.StyletoolsError as error:
        status = report(error)
    except OSError as error:
        status = report(errors.from_os_error(error))
    except BaseException as error:
        status = report(as_styletools_error(error))
    _silence_standard_output()
    sys.exit(status)


def _open_closed_streams() -> None:
    """Put something in place of closed standard streams, lest the first file opened be taken for one of them.

    Reading and writing the stand-ins fails, except that complaints go nowhere.
    """
    flags = {"stdin": os.O_WRONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}
    for number, (name, flag) in enumerate(flags.items()):
        if getattr(sys, name) is None:
            os.open(os.devnull, flag)  # takes the lowest number that is free, which is this one
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def as_styletools_error(error: BaseException) -> errors.StyletoolsError:
    """Return the error of our tree that any exception stands for; those that no case fits are bugs."""
    if isinstance(error, errors.StyletoolsError):
        return error
    if errors.is_out_of_memory(error):
        made: errors.StyletoolsError = errors.TryAgain("out of memory")
    elif isinstance(error, OSError):
        made = errors.from_os_error(error)
    elif isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("styletools"):
        made = errors.Unavailable(f"the Python package {error.name} is missing: pip install it")
    else:
        made = errors.StyletoolsError(f"internal error: {type(error).__name__}: {error} (-v shows where)")
    made.__cause__ = error
    return made


def report(error: errors.StyletoolsError, record: str = "") -> int:
    """Write the one line of an error (and its traceback with -v) and return its status."""
    text = str(error)
    if record and not text.startswith(f"{record}: "):
        text = f"{record}: {text}"
    log.error(text, status=error.status, **({"record": record} if record else {}))
    if log.verbose():
        with contextlib.suppress(OSError):
            traceback.print_exception(error, file=sys.stderr)
    return error.status


class Signalled(BaseException):
    """SIGTERM, SIGINT or SIGHUP arrived. (click answers KeyboardInterrupt with an empty line.)"""

    def __init__(self, number: int):
        self.number = number


_pending: list[int] = []  # the SIGTERM that waits for the end of `finishing`
_held = False


@contextlib.contextmanager
def finishing():
    """Let the block end before a SIGTERM that arrives meanwhile is answered; a second one does not wait."""
    global _held
    _held = True
    try:
        yield
    finally:
        _held = False
        if _pending:
            raise Signalled(_pending.pop())


def _on_signal(number, frame):
    if _held and number == signal.SIGTERM and not _pending:
        _pending.append(number)
        return
    raise Signalled(number)


def _end_by(number: int) -> None:
    """Clean up, then die of the signal itself, so that the shell sees what happened."""
    files.remove_unfinished()
    _silence_standard_output()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _silence_standard_output() -> None:
    """Point a closed standard output at nothing, lest the interpreter complain of it while ending."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
