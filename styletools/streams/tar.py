"""Tar archives: pictures or tensors with their names kept, through a pipe; gzip, bzip2 and xz are unpacked.

Members are recognised by their bytes, as files are. One that cannot be read comes as `Bad`, and reading goes on;
folders are passed over. A cut-off archive is DataError, even where the cut falls between two members, which tar
itself does not notice. Written members keep their name and get the format of its extension.
"""

import bz2
import gzip
import io
import lzma
import os
import posixpath
import tarfile
import time
import zlib

from styletools import errors, streams
from styletools.streams import Bad, Image, Tensors, _pixels
from styletools.streams import Writer as _Writer
from styletools.streams._reader import FileLike, Reader

NAMES = ("tar",)
EXTENSIONS = {".tar": "tar"}
KIND = "container"
STREAMS = True
MAGIC = rb".{257}ustar|\x1f\x8b\x08|BZh[1-9]1AY&SY|\xfd7zXZ\x00"


class _Header(tarfile.TarInfo):
    """A member's header; unlike tarfile's own, one that is damaged is an error and not the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive):
        """Read the next header."""
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise errors.DataError(f"damaged tar: {error}") from error


def read(reader, limits, *, argument, strict):
    """Yield the records of the members, each called as its member."""
    source = _unpacked(reader)
    with _pixels.decoding("tar"):
        archive = tarfile.open(fileobj=_Blocks(source), mode="r|", tarinfo=_Header)  # noqa: SIM115 - owns nothing
    with _pixels.decoding("tar"):
        member = archive.next()
    while member is not None:
        yield from _member(archive, member, limits)
        # What tarfile remembers of every member would grow with the stream.
        archive.members = []
        with _pixels.decoding("tar"):
            member = archive.next()
    # Taking all of it lets the writer of the pipe end in peace.
    with _pixels.decoding("tar"):
        source.skip_all_of(b"\0")
        if not source.at_end():
            raise errors.DataError("something follows the end of the tar archive")


def index(path: str) -> list[tuple[str, int, int]]:
    """Return name, offset and size of each regular file in an archive that is not compressed, for reading in any order.

    Raises DataError for an archive that is damaged or cut off, and as opening a file does.
    """
    found = []
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise errors.from_os_error(error, path) from error
    try:
        with file, _pixels.decoding("tar"):
            archive = tarfile.open(fileobj=file, mode="r:", tarinfo=_Header)  # noqa: SIM115 - owns nothing
            while (member := archive.next()) is not None:
                if member.isreg() and not member.issparse():
                    found.append((member.name, member.offset_data, member.size))
                archive.members = []
            file.seek(archive.offset)
            if file.read(1 << 20).strip(b"\0"):
                raise errors.DataError("something follows the end of the tar archive")
    except errors.DataError as error:
        raise errors.DataError(f"{path}: {error}") from error
    return found


class _Blocks(io.RawIOBase):
    """What tarfile reads from: as many bytes as have arrived, and an error where it reads past the end.

    tarfile itself would take the end of input for a member's end, after skipping to there in small steps.
    """

    def __init__(self, source: Reader):
        super().__init__()
        self._file = FileLike(source)

    def read(self, size=-1):
        """Return at least one byte."""
        chunk = self._file.read(size)
        if not chunk:
            raise tarfile.ReadError("it ends too early")
        return chunk


class _Strict(io.RawIOBase):
    """A compressed file that says so when it is cut off or damaged."""

    def __init__(self, file):
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, room) -> int:
        """Unpack some bytes."""
        try:
            chunk = self._file.read1(len(room))
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise tarfile.ReadError(f"compressed data is damaged or cut off: {error}") from error
        room[: len(chunk)] = chunk
        return len(chunk)


def _unpacked(reader: Reader) -> Reader:
    head, file = reader.peek(3), FileLike(reader)
    if head[:2] == b"\x1f\x8b":
        return Reader(_Strict(gzip.GzipFile(fileobj=file)))
    if head == b"BZh":
        return Reader(_Strict(bz2.BZ2File(file)))
    if head == b"\xfd7z":
        return Reader(_Strict(lzma.LZMAFile(file)))
    return reader


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, limits):
    """Yield the records of one member."""
    name = member.name
    if member.isdir():
        return
    parts = name.replace("\\", "/").split("/")
    try:
        if name.startswith("/") or ".." in parts:
            raise errors.DataError("a path that leads out of the archive")
        if member.issparse() or not member.isreg():
            raise errors.DataError("not a regular file")
        limits.check_bytes(member.size, "file")
        part = Reader(archive.extractfile(member))
        if part.peek(streams.HEAD)[257:262] == b"ustar":
            raise errors.DataError("an archive in an archive")
        empty = True
        for record in streams.read(part, limits=limits):
            empty = False
            record.name = name
            if member.mtime > 0 and isinstance(record, Image):
                record.meta["mtime"] = int(member.mtime)
            yield record
        if empty:
            raise errors.DataError("empty file")
    except errors.DataError as error:
        yield Bad(name, 0, errors.DataError(f"{name}: {error}"))
    except tarfile.TarError as error:
        raise errors.DataError(f"tar is damaged or cut off in {name}: {error}") from error


class Writer(_Writer):
    """Writes members called as their records, in the format of the extension, else png or safetensors.

    Names are made relative, without `..`; a name that was written before raises CannotCreate.
    """

    def __init__(self, out, name, options):
        super().__init__(out, name, options)
        self._names: set[str] = set()
        self._size = 0

    def write(self, record):
        """Write one member and flush it."""
        name = _member_name(record, self.count)
        if name in self._names:
            raise errors.CannotCreate(f"{name}: twice in the archive")
        self._names.add(name)
        content = io.BytesIO()
        format = streams.by_extension(os.path.splitext(name)[1])
        with streams.writer(content, format, **self.options) as writer:
            writer._warned = self._warned
            writer.write(record)
            self._warned = writer._warned
        header = tarfile.TarInfo(name)
        header.size = content.tell()
        header.mode = 0o644
        header.mtime = int(record.meta.get("mtime") or time.time()) if isinstance(record, Image) else int(time.time())
        data = header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content.getvalue()
        data += b"\0" * (-header.size % tarfile.BLOCKSIZE)
        self._size += len(data)
        self.put(data)
        self.count += 1

    def close(self):
        """Write the end of the archive, filled up to a whole record as tar does."""
        end = 2 * tarfile.BLOCKSIZE
        self.put(b"\0" * (end + -(self._size + end) % tarfile.RECORDSIZE))


def _member_name(record, number: int) -> str:
    wanted = posixpath.normpath("/" + record.name.replace(os.sep, "/")).lstrip("/") if record.name else ""
    fits, default = ("tensors", ".safetensors") if isinstance(record, Tensors) else ("image", ".png")
    wanted = wanted or f"{number:06d}"
    found = streams.by_extension(os.path.splitext(wanted)[1])
    return wanted if found is not None and streams.kind(found) == fits else wanted + default
