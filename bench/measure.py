"""Runs a child and measures what it takes."""

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, astuple, dataclass
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


def median(runs: list[Cost]) -> Cost:
    """The median of each cost, and what the last run printed."""
    return Cost(*(statistics.median(values) for values in zip(*(astuple(run)[:-1] for run in runs))), stdout=runs[-1].stdout)


def binary() -> Path:
    path = os.environ.get("DATAMESH_BIN")
    if not path or not os.access(path, os.X_OK):
        sys.exit("DATAMESH_BIN must name a datamesh binary, built for release; `make bench` does that")
    return Path(path).resolve()


def measure(command: list[str], cwd: Path) -> Cost:
    """Runs `command`; ends the program where it fails.

    A small process in between starts it: until a child runs its own program it counts as large as the process that
    forked it, and the kernel keeps that as its peak.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DATAMESH_")}
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(writer), *command], cwd=cwd, env=environment, stdout=subprocess.PIPE, pass_fds=[writer]
    ) as starter:
        os.close(writer)
        stdout = starter.stdout.read().decode()
        with os.fdopen(reader) as pipe:
            found = pipe.read()
    if starter.returncode != 0 or not found:
        sys.exit(f"{' '.join(command)} ended with {starter.returncode}\n{stdout}")
    return Cost(**json.loads(found), stdout=stdout)


def start(pipe: int, command: list[str]) -> int:
    """The process in between: writes the cost of `command` to `pipe`."""
    os.set_inheritable(pipe, False)
    begun = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    read = [0]
    ended = threading.Event()

    def poll() -> None:
        while not ended.is_set():
            try:
                lines = Path(f"/proc/{child}/io").read_text().splitlines()
            except OSError:
                return
            read[0] = next((int(line.split()[1]) for line in lines if line.startswith("rchar:")), read[0])
            ended.wait(0.02)

    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begun
    ended.set()
    poller.join()
    # Linux gives ru_maxrss in KiB.
    cost = Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, read[0] / MIB)
    with os.fdopen(pipe, "w") as out:
        json.dump({key: value for key, value in asdict(cost).items() if key != "stdout"}, out)
    return os.waitstatus_to_exitcode(status)


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


if __name__ == "__main__":
    sys.exit(start(int(sys.argv[1]), sys.argv[2:]))
