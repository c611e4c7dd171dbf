"""Which output belongs to which content and style: by a table, by name, or as a product; never by the order of names.

    from_table(...)     a table says it                            output<TAB>content<TAB>style
    by_name(...)        outputs are called as their contents       o/cat.png - c/cat.jpg - s/cat.jpg, or one style
    product(...)        every content in every style               o/cat_wave.png - c/cat.jpg - s/wave.jpg

Standard library only: what does not fit together is found before anything heavy is loaded.
"""

import csv
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from styletools import errors, streams
from styletools.cli import _loop

ROLES = ("output", "content", "style")
SHOWN = 10  # names in a message, at most


@dataclass(frozen=True)
class Pair:
    """The files of one comparison; "" where there is none of its kind."""

    output: str
    content: str = ""
    style: str = ""


def pictures(path: str) -> dict[str, str]:
    """Return {name: file} of the pictures below a folder, or of one file; names have no extension.

    Raises MissingInput for a path that is not there, UsageError for two files of one name (a.jpg and a.png).
    """
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise errors.MissingInput(f"{path}: no such file or folder")
        return {os.path.splitext(os.path.basename(path))[0]: path}
    found: dict[str, str] = {}
    for source in _loop.find_sources([path]):
        extension = os.path.splitext(source.path)[1]
        if streams.kind(streams.by_extension(extension)) != "image":
            continue
        name = os.path.splitext(os.path.relpath(source.path, path))[0]
        if name in found:
            raise errors.UsageError(f"{found[name]} and {source.path} have one name: it does not tell which is meant")
        found[name] = source.path
    if not found:
        raise errors.MissingInput(f"{path}: holds no pictures")
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def _natural(name: str) -> list:
    """Return a key to sort names by in which frame-10 comes after frame-9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def from_table(path: str, roots: dict[str, str], wanted: Iterable[str] = ("output",)) -> list[Pair]:
    """Return the pairs that a table tells: tab-separated, the names of its columns (output, content, style) first.

    Its paths are relative to the root of their role (`roots`: {"output": folder, ...}), else to the table itself.
    `wanted`: the columns that it must have. Raises DataError for a table that says something else, MissingInput for
    files that are not there.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    except OSError as error:
        raise errors.from_os_error(error, path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.DataError(f"{path}: not a table of text: {error}") from error
    heads = rows[0] if rows else []
    if not heads or not set(heads) <= set(ROLES) or len(set(heads)) != len(heads):
        raise errors.DataError(f"{path}: its first line must name the columns, of {', '.join(ROLES)}")
    for role in wanted:
        if role not in heads:
            raise errors.DataError(f"{path}: has no column {role}")
    pairs, missing = [], []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(heads):
            raise errors.DataError(f"{path}: line {number} has {len(row)} columns, not {len(heads)}")
        files = {}
        for role, name in zip(heads, row):
            if name and role in (*wanted, "content", "style"):
                files[role] = os.path.join(roots.get(role) or os.path.dirname(path), name)
                if not os.path.exists(files[role]):
                    missing.append(files[role])
        for role in wanted:
            if role not in files:
                raise errors.DataError(f"{path}: line {number} names no {role}")
        pairs.append(Pair(**{"output": ""} | files))
    if missing:
        raise errors.MissingInput(f"{path}: {_some(missing)} not there")
    if not pairs:
        raise errors.DataError(f"{path}: names no pairs")
    return pairs


def by_name(output: str, content: str, style: str, partial: Callable[[str], None] | None = None) -> list[Pair]:
    """Return each output with the content, and the style, of its name; a single style (or content) serves for all.

    Three single files are a pair, whatever they are called. Names without a partner raise MissingInput, which lists
    them, or go to `partial` as a message and are left out.
    """
    outputs = pictures(output)
    partners = {role: pictures(path) for role, path in (("content", content), ("style", style)) if path}
    single = {role for role, path in (("content", content), ("style", style)) if path and not os.path.isdir(path)}
    pairs, alone = [], []
    for name, path in outputs.items():
        files = {role: next(iter(found.values())) if role in single else found.get(name, "")
                 for role, found in partners.items()}  # fmt: skip
        if all(files.values()):
            pairs.append(Pair(path, **files))
        else:
            alone.append(path)
    for role, found in partners.items():
        if role not in single and os.path.isdir(output):
            alone += [path for name, path in found.items() if name not in outputs]
    return _whole(pairs, alone, partial)


def product(
    output: str, content: str, style: str, name: str = "{content}_{style}", partial: Callable[[str], None] | None = None
) -> list[Pair]:
    """Return every content in every style: `name` says what its output is called, without extension."""
    outputs, contents, styles = pictures(output), pictures(content), pictures(style)
    pairs, alone, used = [], [], set()
    for content_name, content_path in contents.items():
        for style_name, style_path in styles.items():
            wanted = name.replace("{content}", content_name).replace("{style}", style_name)
            if wanted in outputs:
                pairs.append(Pair(outputs[wanted], content_path, style_path))
                used.add(wanted)
            else:
                alone.append(os.path.join(output, wanted))
    alone += [path for known, path in outputs.items() if known not in used]
    return _whole(pairs, alone, partial)


def check_template(name: str) -> str:
    """Return a template of names with {content} and {style}. Raises UsageError for any other."""
    if set(re.findall(r"\{(.*?)\}", name)) != {"content", "style"}:
        raise errors.UsageError(f"--name {name!r}: it must have {{content}} and {{style}}, as {{content}}_{{style}}")
    return name


def _whole(pairs: list[Pair], alone: list[str], partial: Callable[[str], None] | None) -> list[Pair]:
    """Return the pairs; what is left alone is an error, or told to `partial`."""
    if alone:
        message = f"no partner of that name for {_some(sorted(alone))}"
        if not partial or not pairs:
            raise errors.MissingInput(message)
        partial(message)
    return pairs


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
