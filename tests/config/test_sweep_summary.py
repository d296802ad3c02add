"""What a sweep leaves at its end."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from thaw.config.sweep_summary import SweepSummary


def test_a_summary_that_cannot_be_written_is_printed_and_the_command_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {"monitor": "m", "mode": "max", "best": 0.5, "epoch": 4, "seconds": 2.5, "metrics": {}}
    (tmp_path / "0").mkdir()
    (tmp_path / "0/metrics.json").write_text(json.dumps(results))
    (tmp_path / "summary.md").mkdir()  # as if the disk were full
    with pytest.raises(SystemExit, match=f"error: the summary was not written: .*{tmp_path}/summary.md") as leaving:
        SweepSummary().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert isinstance(leaving.value.code, str), "exit code 1"
    assert "│ 0     │ ok     │ 0.5000 │" in capsys.readouterr().out
