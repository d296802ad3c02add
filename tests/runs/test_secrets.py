"""What looks like a secret reaches no logger and no report."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig

from tests.conftest import NOISE, TINY
from thaw.config.instantiation import call_expression
from thaw.runs.secrets import masked, masked_override, masked_yaml
from thaw.train import train

Config = Callable[..., DictConfig]


@pytest.mark.parametrize("key", ["token", "hf_token", "api_key", "WANDB_API_KEY", "password", "client-secret"])
def test_secrets_are_hidden(key: str) -> None:
    assert masked({"a": [{key: "hush", "b": 1}]}) == {"a": [{key: "***", "b": 1}]}
    assert "hush" not in masked_yaml(f"a:\n- {key}: hush\n")
    assert masked_override(f"+logger.x.{key}=hush") == f"+logger.x.{key}=***"


def test_all_else_stays() -> None:
    text = "tokenizer: a\nmax_length_tokens: 3\nkey: k\ntoken: null\nuri: https://host/me@x\n"
    assert masked_yaml(text) == text
    assert masked(yaml.safe_load(text)) == yaml.safe_load(text)
    assert masked({"uri": "postgresql://me:hush@host/runs"}) == {"uri": "postgresql://***@host/runs"}
    assert masked_override("logger.x.uri=http://me:hush@host") == "logger.x.uri=http://***@host"
    assert masked_override("debug") == "debug"


def test_loggers_the_report_and_the_code_of_a_card_hold_no_secret(config: Config, tmp_path: Path) -> None:
    seen = []

    class Recording(CSVLogger):
        def log_hyperparams(self, params: object) -> None:  # type: ignore[override]
            seen.append(str(params))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.runs.test_secrets.Recording", Recording, raising=False)
        own = f"+logger.own={{_target_: tests.runs.test_secrets.Recording, save_dir: {tmp_path}/csv, prefix: a}}"
        short = ("freezing=head_only", "freezing.epochs=1")
        tiny = [choice for choice in TINY if choice != "report=false"]
        train(config(*tiny, *NOISE, *short, "logger=tensorboard", own, "+caching.api_key=hush-hush"))
    assert "***" in seen[0]
    files = [*tmp_path.rglob("report.html"), *tmp_path.rglob("events*"), *tmp_path.rglob("hparams.yaml")]
    assert len(files) >= 3
    assert not any(b"hush-hush" in file.read_bytes() for file in files)
    assert "hush" not in call_expression(config("+head.token=hush").head, 1, 2)
