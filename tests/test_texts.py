"""Texts through every command: train, resume, evaluate, predict, export."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from tests.conftest import TINY
from tests.language import NETWORKS, pretrained, texts
from thaw.config.assemble import assemble, run_with_weights, split_data
from thaw.config.recorded import read_config
from thaw.data.tokens import tokenise
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.export import export
from thaw.exporting.run_onnx import token_inputs
from thaw.models.network import Network
from thaw.models.weights import read_checkpoint, read_weights
from thaw.predict import predict
from thaw.stages import stages
from thaw.train import train
from thaw.types import TokenSpec

Config = Callable[..., DictConfig]

QUIET = [choice for choice in TINY if not choice.startswith(("backbone", "data"))]
PLAN = ("freezing.probe_epochs=1", "freezing.epochs=3", "callbacks.checkpoint.save_top_k=-1")


def choices(tmp_path: Path, kind: str = "bert") -> list[str]:
    if not (tmp_path / kind).exists():
        pretrained(tmp_path / kind, kind)
        texts(tmp_path)
    return [
        *QUIET,
        "data=text_table",
        f"data.table={tmp_path}/reviews.csv",
        "data.batch_size=8",
        "backbone=huggingface",
        f"backbone.name={tmp_path}/{kind}",
        "optimizer.lr=1e-2",
    ]


def read(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.reader(opened))


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Path:
    """A finished run whose network's folder is gone by now."""
    train(config(*choices(tmp_path), *PLAN, "data.max_length_tokens=12"))
    shutil.rmtree(tmp_path / "bert")
    return tmp_path / "run"


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("callbacks", ["default", pytest.param("ema", marks=pytest.mark.run)])
def test_a_resumed_run_ends_with_the_same_bits(config: Config, tmp_path: Path, kind: str, callbacks: str) -> None:
    train(config(*choices(tmp_path, kind), *PLAN, f"callbacks={callbacks}"))
    run = tmp_path / "run"
    whole = read_weights(run / "weights.safetensors")
    metrics = (run / "metrics.csv").read_text()
    first = next((run / "checkpoints").glob("best-*epoch000.ckpt"))
    torch.manual_seed(99)
    train(config(f"resume={first}"))
    again = read_weights(run / "weights.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    assert (run / "metrics.csv").read_text() == metrics
    assert all(torch.isfinite(tensor).all() for tensor in whole.values())


def test_resume_minds_the_labels_and_not_the_order_of_the_rows(config: Config, tmp_path: Path) -> None:
    train(config(*choices(tmp_path), *PLAN))
    whole = read_weights(tmp_path / "run/weights.safetensors")
    first = next((tmp_path / "run/checkpoints").glob("best-*epoch000.ckpt"))
    header, *rows = read(tmp_path / "reviews.csv")
    other = {"bad": "good", "good": "odd", "odd": "bad"}
    for name, lines in (("wrong", [[text, other[label]] for text, label in rows]), ("turned", rows[::-1])):
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *lines])
    with pytest.raises(ValueError, match="36 samples have other labels than when this run began"):
        resumed(config, first, tmp_path / "wrong.csv")
    resumed(config, first, tmp_path / "turned.csv")
    again = read_weights(tmp_path / "run/weights.safetensors")
    assert all(torch.allclose(tensor, again[name], atol=1e-6) for name, tensor in whole.items())


def resumed(config: Config, checkpoint: Path, table: Path) -> None:
    """With the table moved, as it is typed: the run folder's configuration is what counts."""
    file = checkpoint.parent.parent / "config.yaml"
    cfg = OmegaConf.load(file)
    cfg.data.table = str(table)
    OmegaConf.save(cfg, file)
    train(config(f"resume={checkpoint}"))


def test_frozen_stages_stay_as_they_were_pretrained(config: Config, tmp_path: Path) -> None:
    train(config(*choices(tmp_path), "freezing=phases", "freezing.phases=[{epochs: 2, train: [layer1, head]}]"))
    before = read_weights(tmp_path / "bert/model.safetensors")
    after = read_weights(tmp_path / "run/weights.safetensors")
    dense = "encoder.layer.{}.output.dense.weight"
    for name in (dense.format(0), "embeddings.word_embeddings.weight"):
        assert torch.equal(after[f"backbone.{name}"], before[name])
    assert not torch.equal(after[f"backbone.{dense.format(1)}"], before[dense.format(1)])


@pytest.mark.run
def test_plans_of_many_phases_run_on_texts(config: Config, tmp_path: Path) -> None:
    typed = choices(tmp_path)
    for plan in ("gradual", "chain_thaw"):
        metrics = train(
            config(*typed, f"freezing={plan}", "freezing.epochs_per_stage=1", f"run_folder={tmp_path}/{plan}")
        )
        assert metrics["loss/test"] > 0
    with pytest.raises(UserError, match=r"nothing matches 'pool'\nthe stages are: embeddings, layer0, layer1, head; "):
        train(config(*typed, "freezing=phases", "freezing.phases=[{epochs: 1, train: [pool]}]"))


def test_the_folder_is_all_that_evaluate_needs(config: Config, run: Path, tmp_path: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    again = evaluate(config(f"run={run}", name="evaluate"))
    assert again == {name: value for name, value in metrics.items() if name.endswith("/test")}
    assert "texts are longer than" in (run / "data.txt").read_text()
    # Rows that come later, or lie in another order, move nothing.
    header, *rows = read(tmp_path / "reviews.csv")
    with (tmp_path / "moved.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, ["something new", "good"], *reversed(rows)])
    again = evaluate(config(f"run={run}", f"+data.table={tmp_path}/moved.csv", name="evaluate"))
    assert again["accuracy/test"] == metrics["accuracy/test"]
    assert again["loss/test"] == pytest.approx(metrics["loss/test"], abs=1e-6)


def test_predictions_agree_with_evaluate_in_the_order_of_the_rows(config: Config, run: Path, tmp_path: Path) -> None:
    metrics = evaluate(config(f"run={run}", name="evaluate"))
    data = split_data(read_config(run))
    header, *rows = read(tmp_path / "reviews.csv")
    rows = rows[::-2] + rows[::2]  # neither from short to long nor the other way
    with (tmp_path / "mixed.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    written = predict(config(f"run={run}", f"input={tmp_path}/mixed.csv", "batch_size=5", name="predict"))
    with written.open(newline="", encoding="utf-8") as opened:
        found = list(csv.DictReader(opened))
    assert [row["text"] for row in found] == [text for text, _ in rows]
    label = {row["text"]: row["label"] for row in found}
    truth = dict(rows)
    tested = [data.texts[i] for i in data.splits.test]  # type: ignore[attr-defined]
    assert np.mean([label[text] == truth[text] for text in tested]) == pytest.approx(metrics["accuracy/test"])


def test_a_text_a_file_of_lines_and_bad_rows(
    config: Config, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(*typed: str) -> list[dict[str, str]]:
        with predict(config(f"run={run}", *typed, name="predict")).open(newline="", encoding="utf-8") as opened:
            return list(csv.DictReader(opened))

    (alone,) = rows("input='정말 최고, really'")
    assert alone["text"] == "정말 최고, really"
    assert '"label": ' in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("great film\n\nawful film\n")
    assert [row["text"] for row in rows(f"input={tmp_path}/lines.txt")] == ["great film", "awful film"]
    shown = capsys.readouterr().out
    assert "skipped, 1 of 3:\n  lines.txt, line 2: empty" in shown
    (tmp_path / "other.txt").write_text("great\u2028film\nawful\x0cfilm\r\n", encoding="utf-8")
    assert [row["text"] for row in rows(f"input={tmp_path}/other.txt")] == ["great\u2028film", "awful\x0cfilm"]
    capsys.readouterr()
    (tmp_path / "new.csv").write_text('id,said\n1,great film\n2,"so, ""so"""\n3\n')
    assert [row["text"] for row in rows(f"input={tmp_path}/new.csv", "column=said")] == ["great film", 'so, "so"']
    assert "new.csv, line 4: 1 values for 2 columns" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"no column text, but id, said: type column="):
        rows(f"input={tmp_path}/new.csv")
    with pytest.raises(ValueError, match="would take the place of"):
        rows(f"input={tmp_path}/new.csv", "column=said", f"output={tmp_path}/new")
    (tmp_path / "old.csv").write_bytes("text\n최고\n\n최악\n".encode("cp949"))
    with pytest.raises(ValueError, match=r"thaw.predict: encoding="):
        rows(f"input={tmp_path}/old.csv")
    assert [(row["row"], row["text"]) for row in rows(f"input={tmp_path}/old.csv", "encoding=cp949")] == [
        ("1", "최고"),
        ("3", "최악"),
    ]
    (alone,) = rows(f"input='{'great film ' * 30}'")
    assert "1 of 1 texts are longer than 12 tokens" in capsys.readouterr().out
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="none of the 2 can be used"):
        rows(f"input={tmp_path}/empty.txt")


def require_loads_in_transformers(file: Path, network: Network) -> None:
    """The library's own class takes all tensors of the folder but the head's, and gives the same logits."""
    transformers = __import__("transformers")
    library_network, report = transformers.AutoModel.from_pretrained(file.parent, output_loading_info=True)
    assert set(report["unexpected_keys"]) == {"head.weight", "head.bias"}
    assert {name for name in report["missing_keys"] if not name.startswith("pooler.")} == set()
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    inputs = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]), "attention_mask": mask}
    head = load_file(file)
    with torch.inference_mode():
        states = library_network.eval()(**inputs).last_hidden_state[torch.arange(2), mask.sum(1) - 1]
        assert torch.allclose(states @ head["head.weight"].T + head["head.bias"], network(inputs), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        pytest.param("bert", "state_dict", marks=pytest.mark.run),
        pytest.param("llama", "safetensors", marks=pytest.mark.run),
        pytest.param("llama", "exported_program", marks=pytest.mark.run),
        ("bert", "onnx"),
    ],
)
def test_each_format_agrees_for_any_number_and_length_of_texts(
    config: Config, tmp_path: Path, kind: str, form: str
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    train(config(*choices(tmp_path, kind), "backbone.pooling=last", "freezing=full", "freezing.epochs=1"))
    shutil.rmtree(tmp_path / kind)
    run = tmp_path / "run"
    file = export(config(f"run={run}", f"format={form}", "samples=8", name="export"))
    there = {part.name for part in file.parent.iterdir()}
    extra = {"onnx": {"run_onnx.py"}, "exported_program": set()}.get(form, {"config.json"})
    assert there == {file.name, "model_card.md", "tokenizer.json", "tokenizer_config.json", *extra}
    card = (file.parent / "model_card.md").read_text()
    assert "It classifies texts" in card
    parts = assemble(read_config(run), run_with_weights(str(run)))
    if form not in ("onnx", "exported_program"):
        assert "network.head(network(**inputs).last_hidden_state[torch.arange" in card
        if form == "safetensors":
            require_loads_in_transformers(file, parts.network)
        return
    assert isinstance(parts.backbone.input_spec, TokenSpec)
    said = ["great", "the film was 최악 . " * 5, "", "정말 \U0001f600\n이상해"]
    tokenizer = __import__("tokenizers").Tokenizer.from_file(str(file.parent / "tokenizer.json"))
    preprocessing = {"2_max_length_tokens": parts.backbone.input_spec.max_length_tokens, "3_pad_id": 0}
    for chosen in (said, said[:1], said[1:3]):
        inputs = token_inputs(tokenizer, chosen, preprocessing)
        tensors = tokenise(chosen, parts.backbone.input_spec).batch(range(len(chosen)))
        with torch.inference_mode():
            expected = parts.network(tensors).softmax(1).numpy()
        if form == "onnx":
            import onnxruntime

            (found,) = onnxruntime.InferenceSession(str(file)).run(None, inputs)
        else:
            program = torch.export.load(file).module()
            found = program(*map(torch.from_numpy, inputs.values())).detach().numpy()
        assert np.allclose(found, expected, atol=1e-5)


def test_texts_and_images_do_not_mix(config: Config, tmp_path: Path) -> None:
    typed = choices(tmp_path)
    with pytest.raises(ValueError, match="the backbone reads texts, and the data are images"):
        train(config(*QUIET, "backbone=huggingface", f"backbone.name={tmp_path}/bert"))
    with pytest.raises(ValueError, match="the backbone reads images, and the data are texts"):
        train(config(*QUIET, "data=text_table", f"data.table={tmp_path}/reviews.csv"))
    with pytest.raises(ValueError, match="mixing mixes images, and the data are texts: type mixing=none"):
        train(config(*typed, "mixing=mixup"))


def test_a_new_run_starts_from_an_old_one_s_weights(config: Config, run: Path, tmp_path: Path) -> None:
    typed = choices(tmp_path)
    train(config(*typed, f"init_from={run}", "freezing=head_only", "freezing.epochs=1", f"run_folder={tmp_path}/next"))
    old, new = (read_weights(tmp_path / name / "weights.safetensors") for name in ("run", "next"))
    name = "backbone.encoder.layer.0.output.dense.weight"
    assert torch.equal(old[name], new[name])


@pytest.mark.run
def test_an_export_to_hugging_face_is_used_there_and_begins_new_runs(
    config: Config, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = export(config(f"run={run}", "format=huggingface", "samples=8", name="export")).parent
    code = (folder / "model_card.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(folder)
    alone = f"import sys; sys.modules['thaw'] = None\n{code}\nprint(network.config.id2label)"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=False)
    assert done.stdout == "{0: 'bad', 1: 'good', 2: 'odd'}\n", done.stderr

    said = ["great film", "최악 . dull"]
    pipeline = transformers.pipeline("text-classification", str(folder), trust_remote_code=True, device="cpu")
    found = [row["label"] for row in pipeline(said)]
    parts = assemble(read_config(run), run_with_weights(str(run)))
    with torch.inference_mode():
        tensors = tokenise(said, parts.backbone.input_spec).batch([0, 1])  # type: ignore[arg-type]
        assert found == [parts.module.class_names[number] for number in parts.network(tensors).argmax(1)]

    typed, plan = choices(tmp_path), ("freezing=head_only", "freezing.epochs=1")
    name = "backbone.encoder.layer.0.output.dense.weight"
    before = read_weights(run / "weights.safetensors")[name]
    for number, source in enumerate((f"init_from={folder}", f"backbone.name={folder}", f"backbone.weights={folder}")):
        new = tmp_path / f"new{number}"
        train(config(*typed, *plan, source, f"run_folder={new}"))
        assert torch.equal(before, read_weights(new / "weights.safetensors")[name]), source
    file = tmp_path / "bert/tokenizer.json"
    file.write_text(file.read_text().replace("great", "grand"))
    with pytest.raises(ValueError, match="was trained with another tokenizer"):
        train(config(*typed, f"init_from={folder}", f"run_folder={tmp_path}/refused"))


def test_weights_do_not_change_their_words(config: Config, run: Path, tmp_path: Path) -> None:
    typed = choices(tmp_path)
    file = tmp_path / "bert/tokenizer.json"
    file.write_text(file.read_text().replace("great", "grand"))
    with pytest.raises(ValueError, match="was trained with another tokenizer"):
        train(config(*typed, f"init_from={run}", f"run_folder={tmp_path}/next"))


def test_the_stages_are_shown(config: Config, tmp_path: Path) -> None:
    pretrained(tmp_path / "llama", "llama")
    shown = stages(config("backbone=huggingface", f"backbone.name={tmp_path}/llama", name="stages"))
    assert "input up to 40 tokens" in shown
    assert "layer1" in shown
    assert "-> T x 16" in shown


def test_checkpoints_hold_plain_values(run: Path) -> None:
    content = read_checkpoint(run / "checkpoints/last.ckpt")
    assert content["class_names"] == ["bad", "good", "odd"]


@pytest.mark.contract
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_family_trains_and_is_exported(config: Config, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    train(config(*choices(tmp_path, kind), *PLAN))
    for form in ("safetensors", "onnx"):
        cfg = config(f"run={tmp_path}/run", f"format={form}", "samples=8", name="export")
        if (kind, form) == ("longformer", "onnx"):  # its own code looks at the length of the texts
            with pytest.raises(UserError, match=r"cannot be written as onnx \(Could not guard on data-dependent"):
                export(cfg)
        else:
            export(cfg)
