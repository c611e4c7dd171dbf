"""How much memory there is. Standard library only."""

import contextlib
import os

SHARE = 0.5  # of the memory that is free, which is taken where no limit is given


def free(limit: int = 0) -> float:
    """Return how many more bytes this process may take, of `limit` altogether; 0: of what the system has left."""
    return limit - resident() if limit else SHARE * available()


def available() -> int:
    """Return how many bytes of memory are free for a new use, by what the system tells, and its containers."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as file:
        lines = dict(line.split(":") for line in file)
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int(_read(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current"))
        found.append(max(limit - used, 0))
    if not found:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(found)


def resident() -> int:
    """Return how many bytes of memory this process holds; where the system does not tell, what torch takes alone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(_read("/proc/self/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 400 << 20


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
