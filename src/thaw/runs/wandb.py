"""Weights & Biases, for a run that goes on: it has every row once."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

FILE_HEADER, CHUNK_HEADER, BLOCK = 7, 7, 32768
"""Bytes."""


class ResumableWandbLogger(WandbLogger):
    """Numbers the rows that it sends, as W&B's steps.

    A killed run has sent more rows than it goes on from, or fewer, where W&B's own process was killed with it. `rows`:
    what `metrics.csv` keeps of them. Those that W&B lacks are sent first, and none is sent again.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]], **choices: Any):
        super().__init__(**choices)
        self._rows, self._sent, self._number = rows, 0, -1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._number < 0:
            self._begin()
        self._send(metrics if step is None else {**metrics, "trainer/global_step": step})

    def _begin(self) -> None:
        self._sent = rows_in(self._earlier_files()) if self._offline else self.experiment.step
        self._number = 0
        for row in self._rows:
            values = {name: float(value) for name, value in row.items() if value and name != "step"}
            self._send({**values, "trainer/global_step": int(row["step"])})

    def _send(self, row: Mapping[str, float]) -> None:
        if self._number >= self._sent:
            self.experiment.log(dict(row), step=self._number, commit=True)
        self._number += 1

    def _earlier_files(self) -> list[Path]:
        """Of this run's earlier processes, where they were offline."""
        own = Path(self.experiment.dir).parent
        found = own.parent.glob(f"offline-run-*-{self._id}/run-{self._id}.wandb")
        return [file for file in found if file.parent != own]


def rows_in(files: Sequence[Path]) -> int:
    """How many rows files of offline runs hold together: one more than the largest step."""
    steps = [record.history.step.num for file in files for record in records(file) if record.HasField("history")]
    return max(steps, default=-1) + 1


def records(file: Path) -> Iterator[Any]:
    """Of a `.wandb` file, up to where it was cut off. Framed like a LevelDB log: blocks of 32 KiB, chunks of (checksum,
    length, type)."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    content, position, record = file.read_bytes(), FILE_HEADER, b""
    while position + CHUNK_HEADER <= len(content):
        left_in_block = BLOCK - position % BLOCK
        if left_in_block < CHUNK_HEADER:
            position += left_in_block
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + CHUNK_HEADER])
        position += CHUNK_HEADER
        if kind == 0 or position + length > len(content):
            return
        record += content[position : position + length]
        position += length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""
