"""Runs a child and measures what it takes."""

import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent
PROJECT = BENCH.parent
DATA = BENCH / "data"
MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """What a child took, its own children included."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    """Greatest resident memory."""
    read_mib: float
    """What its read calls returned (`rchar`), whatever the file; last seen shortly before it ended."""
    stdout: str = ""

    def as_json(self) -> dict:
        return {key: round(value, 3) for key, value in asdict(self).items() if key != "stdout"}


def binary() -> Path:
    path = os.environ.get("DATAMESH_BIN")
    if not path or not os.access(path, os.X_OK):
        sys.exit("DATAMESH_BIN must name a datamesh binary, built for release; `make bench` does that")
    return Path(path).resolve()


def measure(command: list[str], cwd: Path) -> Cost:
    """Runs `command`; ends the program where it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DATAMESH_")}
    begun = time.perf_counter()
    child = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE)
    read = [0]
    ended = threading.Event()

    def poll() -> None:
        while not ended.is_set():
            try:
                lines = Path(f"/proc/{child.pid}/io").read_text().splitlines()
            except OSError:
                return
            read[0] = next((int(line.split()[1]) for line in lines if line.startswith("rchar:")), read[0])
            ended.wait(0.02)

    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    stdout = child.stdout.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begun
    ended.set()
    poller.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}\n{stdout}")
    # Linux gives ru_maxrss in KiB.
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, read[0] / MIB, stdout)


def machine() -> dict:
    model = "unknown"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {"cores": len(os.sched_getaffinity(0)), "cpu": model, "memory_gib": round(memory, 1), "kernel": platform.release()}


def print_table(head: list[str], rows: list[list]) -> None:
    """A Markdown table."""
    cells = [head, *[[f"{cell:,.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print("\n".join(lines))
