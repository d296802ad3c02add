"""The processes that load."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
from torch.utils.data import DataLoader
from thaw.data.loader import init_worker

if __name__ == "__main__":
    loader = DataLoader(range(99), num_workers=2, worker_init_fn=init_worker, multiprocessing_context=sys.argv[1])
    batches = iter(loader)
    next(batches)
    print(*[worker.pid for worker in batches._workers], flush=True)
    time.sleep(999)
"""


def is_alive(pid: int) -> bool:
    """And no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_loader_processes_end_with_the_one_that_they_load_for(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen([sys.executable, program, method], stdout=subprocess.PIPE, text=True) as loading:
        assert loading.stdout is not None
        workers = [int(pid) for pid in loading.stdout.readline().split()]
        assert len(workers) == 2
        assert all(is_alive(pid) for pid in workers)
        loading.kill()
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a loader process outlives the run"
        time.sleep(0.05)
