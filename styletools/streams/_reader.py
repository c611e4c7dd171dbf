"""A byte source that cannot seek, with a look ahead: what every stream format reads from."""

import io
import re
import select
from collections.abc import Iterator

from styletools import errors

_CHUNK = 1 << 16
# What a record claims to hold is allocated up to here; more only as its bytes arrive.
_TRUSTED = 1 << 24


class Reader:
    """Read exactly what is asked from a pipe, a file or a `BytesIO`, and look ahead without losing anything.

    One operating-system read at a time, and none as long as the bytes asked for are there: so what is in a
    pipe is seen at once, and nothing waits for bytes that a record does not need.
    Running out in the middle raises DataError, a failing source InputOutputError.
    """

    def __init__(self, source):
        self._source = source
        self._ahead = bytearray()
        self._ended = False
        if isinstance(source, io.RawIOBase):
            self._read_into = source.readinto
        else:
            self._read_into = getattr(source, "readinto1", None)
        self._read_some = getattr(source, "read1", None) or source.read

    def _once(self, call, argument):
        """Call one read of the source; wait where a non-blocking source has nothing yet."""
        while True:
            try:
                got = call(argument)
            except OSError as error:
                raise errors.from_os_error(error) from error
            if got is not None:
                return got
            select.select([self._source], [], [])

    def more(self) -> bool:
        """Wait for some more bytes to look at; False when the source has ended."""
        if not self._ended:
            chunk = self._once(self._read_some, _CHUNK)
            self._ahead += chunk
            self._ended = not chunk
        return not self._ended

    def fill(self, size: int) -> bool:
        """Have at least `size` bytes to look at; False when the source ends before."""
        while len(self._ahead) < size:
            if not self.more():
                return False
        return True

    def peek(self, size: int, start: int = 0) -> bytes:
        """Return the `size` bytes (fewer only at the end) that are `start` bytes ahead, without taking them."""
        self.fill(start + size)
        return bytes(self._ahead[start : start + size])

    def there(self, size: int) -> bytes:
        """Return up to `size` bytes that have already arrived, without taking them and without waiting."""
        return bytes(self._ahead[:size])

    def at_end(self) -> bool:
        """Tell whether nothing follows; waits for the next byte."""
        return not self.fill(1)

    def search(self, pattern: re.Pattern, start: int, limit: int) -> int | None:
        """Find `pattern` (2 bytes long) from `start` bytes ahead on; return where, None when the source ends before.

        More than `limit` bytes ahead raises DataError.
        """
        while True:
            found = pattern.search(self._ahead, start)
            if found:
                return found.start()
            start = max(start, len(self._ahead) - 1)
            if start > limit:
                raise errors.DataError(f"record is larger than the limit of {limit} bytes")
            if not self.more():
                return None

    def take(self, size: int, what: str = "record") -> bytearray:
        """Return exactly the next `size` bytes; DataError when the source ends before: `what` is cut off.

        Memory grows with the bytes that arrive, not with `size`.
        """
        if len(self._ahead) >= size:
            taken = self._ahead[:size]
            del self._ahead[:size]
            return taken
        have = len(self._ahead)
        room = min(size, max(_TRUSTED, 2 * have))
        taken = bytearray(room)
        taken[:have] = self._ahead
        self._ahead = bytearray()
        while have < size:
            if have == room:
                room = min(size, 2 * room)
                taken.extend(bytes(room - have))
            got = self._once_into(memoryview(taken)[have:room])
            if not got:
                raise errors.DataError(f"{what} is cut off: {have} of {size} bytes")
            have += got
        return taken

    def line(self, what: str) -> str:
        """Take one line of the header of `what`, at most 4096 bytes, without its end; what is not ASCII is replaced."""
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self.take(1, f"{what} header")
            if len(line) > 4096:
                raise errors.DataError(f"damaged {what}: a header line without end")
        return line[:-1].decode("ascii", "replace")

    def _once_into(self, room: memoryview) -> int:
        if self._ended:
            return 0
        if self._read_into is not None:
            got = self._once(self._read_into, room)
        else:
            chunk = self._once(self._read_some, min(len(room), 1 << 20))
            got = len(chunk)
            room[:got] = chunk
        self._ended = not got
        return got

    def skip(self, size: int) -> int:
        """Throw away the next `size` bytes; return how many there were before the end."""
        left = size
        while left and not self.at_end():
            step = min(left, len(self._ahead))
            del self._ahead[:step]
            left -= step
        return size - left

    def skip_all_of(self, padding: bytes) -> None:
        """Throw away the bytes that follow as long as they are among `padding`."""
        while padding and not self.at_end():
            rest = self._ahead.lstrip(padding)
            skipped = len(self._ahead) - len(rest)
            del self._ahead[:skipped]
            if rest:
                return

    def everything(self, limit: int) -> bytes:
        """Return all that follows up to the end; DataError when it is more than `limit` bytes."""
        while self.more():
            if len(self._ahead) > limit:
                raise errors.DataError(f"larger than the limit of {limit} bytes")
        taken = bytes(self._ahead)
        self._ahead = bytearray()
        return taken

    def each(self, magic: bytes, *, what: str, padding: bytes = b"", strict: bool = True) -> Iterator[int]:
        """Yield 0, 1, 2 ... as long as a record starting with the expression `magic` is the next thing.

        The first is taken for granted. `padding` bytes between records are skipped. Something else raises
        DataError, or just ends the records when not `strict`.
        """
        pattern = re.compile(magic, re.DOTALL)
        number = 0
        while not self.at_end():
            if number:
                self.skip_all_of(padding)
                if self.at_end():
                    return
                while not pattern.match(self._ahead) and len(self._ahead) < 16 and self.more():
                    pass
                if not pattern.match(self._ahead):
                    if not strict:
                        return
                    raise errors.DataError(f"something that is not {what} follows record {number - 1}")
            yield number
            number += 1


class FileLike(io.RawIOBase):
    """A `Reader` as a file object for libraries; `read(n)` returns what has arrived, at least one byte."""

    def __init__(self, reader: Reader):
        super().__init__()
        self._reader = reader

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, room) -> int:
        """Fill `room` as far as bytes have arrived."""
        if self._reader.at_end():
            return 0
        chunk = self._reader.there(len(room))
        room[: len(chunk)] = chunk
        self._reader.skip(len(chunk))
        return len(chunk)
