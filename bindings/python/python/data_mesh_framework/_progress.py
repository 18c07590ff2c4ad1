"""Progress of long work: a line on the terminal or below a notebook's cell."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Union

from .backend import Progress

Wanted = Union[bool, Progress, None]
"""Whether to show progress (None: where somebody looks), or whom to tell of it."""

_EVERY = 0.1


class _Line:
    """Tells on standard error how far the tables are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: dict[str, tuple[int, int | None]] = {}
        self._shown_at = 0.0
        self._width = 0

    def __call__(self, event: dict[str, Any]) -> None:
        with self._lock:
            table = str(event.get("table", ""))
            done, total = event.get("bytes"), event.get("total")
            if done is None:
                return
            self._tables[table] = (int(done), None if total is None else int(total))
            now = time.monotonic()
            if now - self._shown_at >= _EVERY:
                self._shown_at = now
                self._show("  ".join(_part(name, *state) for name, state in self._tables.items()))

    def end(self) -> None:
        with self._lock:
            if self._width:
                self._show("")
                sys.stderr.write("\r")
                sys.stderr.flush()

    def _show(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)


@contextmanager
def progress(wanted: Wanted) -> Iterator[Progress | None]:
    """Whom to tell, while it goes on."""
    if callable(wanted):
        yield wanted
    elif wanted or (wanted is None and _somebody_looks()):
        line = _Line()
        try:
            yield line
        finally:
            line.end()
    else:
        yield None


def _somebody_looks() -> bool:
    # A notebook has a shell with a kernel; to have imported IPython is not enough.
    python: Any = sys.modules.get("IPython")
    shell = python.get_ipython() if python is not None else None
    return getattr(shell, "kernel", None) is not None or (sys.stderr is not None and sys.stderr.isatty())


def _part(table: str, done: int, total: int | None) -> str:
    size = f"{done / 1e6:,.1f} MB"
    return f"{table} {size}" if not total else f"{table} {min(100, 100 * done // total)} % ({size})"
