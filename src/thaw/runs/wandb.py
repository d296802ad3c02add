"""Weights & Biases logger for runs that are resumed: W&B gets every row once."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

FILE_HEADER_BYTES, CHUNK_HEADER_BYTES, BLOCK_BYTES = 7, 7, 32768
WHOLE, LAST_PART = 1, 4
"""Types of chunks that end a record."""


class ResumableWandbLogger(WandbLogger):
    """WandbLogger that numbers rows itself, as W&B's steps, so that W&B gets each row once.

    A killed run may have sent more rows than it resumes from. It may also have sent fewer, if W&B's own process was
    killed. The rows that W&B lacks are sent first, and no row is sent twice.

    Args:
        rows: The rows of `metrics.csv` that the run resumes from.
        choices: Arguments of WandbLogger.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]], **choices: Any):
        super().__init__(**choices)
        self._rows, self._num_sent, self._next = rows, 0, -1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one row; the first call sends the earlier rows that W&B lacks."""
        if self._next < 0:
            self._send_earlier_rows()
        self._send(metrics if step is None else {**metrics, "trainer/global_step": step})

    @rank_zero_only
    def log_media(self, values: Mapping[str, Any]) -> None:
        """Add images, tables or histograms to the next row: with rows of their own, rows could not be counted."""
        if self._next < 0:
            self._send_earlier_rows()
        if self._next >= self._num_sent:
            self.experiment.log(dict(values), step=self._next, commit=False)

    def _send_earlier_rows(self) -> None:
        self._num_sent = count_rows(self._earlier_files()) if self._offline else self.experiment.step
        self._next = 0
        for row in self._rows:
            values = {name: float(value) for name, value in row.items() if value and name != "step"}
            self._send({**values, "trainer/global_step": int(row["step"])})

    def _send(self, row: Mapping[str, float]) -> None:
        if self._next >= self._num_sent:
            self.experiment.log(dict(row), step=self._next, commit=True)
        self._next += 1

    def _earlier_files(self) -> list[Path]:
        """Return the files that earlier, offline processes of this run wrote."""
        current = Path(self.experiment.dir).parent
        files = current.parent.glob(f"offline-run-*-{self._id}/run-{self._id}.wandb")
        return [file for file in files if file.parent != current]


def count_rows(files: Sequence[Path]) -> int:
    """Return how many rows the files of one offline run hold together: its largest step plus one."""
    steps = [record.history.step.num for file in files for record in read_records(file) if record.HasField("history")]
    return max(steps, default=-1) + 1


def read_records(file: Path) -> Iterator[Any]:
    """Yield W&B's `Record` messages of a `.wandb` file, up to where it was cut off.

    The format is a LevelDB log: blocks of 32 KiB with chunks of (checksum, length, type). W&B's library has no reader
    of its own in Python.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # here, because it takes a second

    content, position, record = file.read_bytes(), FILE_HEADER_BYTES, b""
    while position + CHUNK_HEADER_BYTES <= len(content):
        left_in_block = BLOCK_BYTES - position % BLOCK_BYTES
        if left_in_block < CHUNK_HEADER_BYTES:
            position += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += CHUNK_HEADER_BYTES
        if kind == 0 or position + length > len(content):
            return
        record += content[position : position + length]
        position += length
        if kind in (WHOLE, LAST_PART):
            yield Record.FromString(record)
            record = b""
