"""Command lines as a user types them: a mistake ends in one message, a bug in a traceback, both with exit code 1."""

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tests.conftest import NOISE, TINY
from tests.malice import save_malicious
from tests.photos import photos
from thaw.arguments import for_hydra
from thaw.config.assemble import run_with_weights
from thaw.config.overrides import typed_overrides
from thaw.train import main, train

Config = Callable[..., DictConfig]
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run `thaw.train` with these overrides; gives the one message that it leaves with."""

    def run(*overrides: str) -> str:
        placed = any(o.startswith(("run_folder=", "resume=")) or o == "-m" for o in overrides)
        folder = [] if placed else [f"run_folder={tmp_path / 'r'}"]
        monkeypatch.setattr(sys, "argv", ["thaw.train", *overrides, *folder])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        message = leaving.value.code
        assert isinstance(message, str), "exit code 1, this text on stderr"
        assert message.startswith("error: ")
        assert "Traceback" not in message + "".join(capsys.readouterr())
        return message

    return run


def test_photographs_without_a_backbone_are_met_with_commands(refused: Refused, tmp_path: Path) -> None:
    quiet = [choice for choice in TINY if not choice.startswith(("backbone", "data"))]
    typed = (*quiet, "data=image_folder", f"data.root={photos(tmp_path)}", "data.num_workers=0")
    message = refused(*typed)
    assert "these images are coloured, and no backbone is named" in message
    for choice in ("backbone=torchvision backbone.name=resnet18", "backbone=timm backbone.name=", "backbone=glyphs"):
        assert choice in message
    assert not (tmp_path / "r").exists()
    assert "phase 1 trains nothing" in refused(
        *typed, "backbone=glyphs", "freezing=phases", "freezing.phases=[{epochs: 1, train: []}]"
    )


def test_a_phase_that_trains_nothing_is_refused(refused: Refused) -> None:
    message = refused(*TINY, "freezing=phases", "freezing.phases=[{epochs: 1, train: []}]")
    assert "phase 1 trains nothing: name at least one stage" in message


@pytest.mark.parametrize("sweep", [False, True])
def test_a_folder_that_cannot_be_written_is_named(refused: Refused, tmp_path: Path, sweep: bool) -> None:
    (tmp_path / "file").write_text("no folder")
    choice = ("-m", f"hydra.sweep.dir={tmp_path}/file/s", "seed=1,2") if sweep else (f"run_folder={tmp_path}/file/r",)
    message = refused(*choice, *TINY)
    assert f"{tmp_path}/file" in message
    assert "Not a directory" in message


def test_a_mistake_leaves_no_folder_behind(refused: Refused, tmp_path: Path) -> None:
    refused("data.fold=7")
    refused(*TINY, "freezing=surgical", "freezing.train=[layer9]")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ended_before_its_first_checkpoint_can_be_started_again(refused: Refused, tmp_path: Path) -> None:
    explode = ("freezing=full", "optimizer.lr=1e30")
    assert "There is no checkpoint yet" in refused(*TINY, *explode)
    assert "Start it again" in refused(f"resume={tmp_path / 'r'}")
    assert "There is no checkpoint yet" in refused(*TINY, *explode), "not: in use"


def test_a_folder_in_use_is_not_overwritten(refused: Refused, config: Config, tmp_path: Path) -> None:
    train(config(*TINY, "freezing=head_only", "freezing.epochs=1"))
    before = (tmp_path / "run/metrics.json").read_text()
    message = refused(*TINY, f"run_folder={tmp_path / 'run'}")
    assert f"resume={tmp_path / 'run'} continues it" in message
    assert (tmp_path / "run/metrics.json").read_text() == before


def test_checkpoints_of_another_network_and_malicious_ones_are_refused(
    refused: Refused, config: Config, tmp_path: Path
) -> None:
    train(config(*TINY, "freezing=head_only", "freezing.epochs=1"))
    run = tmp_path / "run"
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    other = {name.replace("layer1", "block1"): value for name, value in checkpoint["state_dict"].items()}
    torch.save({**checkpoint, "state_dict": other}, run / "checkpoints/other.ckpt")
    torch.save(other, tmp_path / "other.pth")
    assert "is a checkpoint of another network" in refused(f"resume={run}/checkpoints/other.ckpt")
    assert "is of another network" in refused(*TINY, f"init_from={tmp_path}/other.pth")
    for choice in (f"resume={run}/checkpoints/evil.ckpt", f"init_from={run}/checkpoints/evil.ckpt"):
        malice = save_malicious(run / "checkpoints/evil.ckpt")
        message = refused(*(() if choice.startswith("resume") else TINY), choice)
        assert "could run code that somebody else wrote" in message
        assert not malice.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device that this is about")
def test_a_device_that_is_not_there_is_named(refused: Refused) -> None:
    assert "gpu" in refused("trainer=gpu").lower()


def test_a_loss_that_is_not_finite_says_where(refused: Refused, tmp_path: Path) -> None:
    explode = "freezing.phases=[{epochs: 1, train: [head]}, {epochs: 3, train: ['*'], lr_scale: 1e38}]"
    message = refused(*TINY, "freezing=phases", explode)
    assert "phase 2 of 2" in message
    assert f"The last good checkpoint is {tmp_path}/r/checkpoints/last.ckpt" in message


def test_resume_takes_runs_and_no_new_choices(refused: Refused, config: Config, tmp_path: Path) -> None:
    assert "is no run folder" in refused(f"resume={tmp_path}")
    train(config(*TINY, "freezing=head_only", "freezing.epochs=1"))
    message = refused(f"resume={tmp_path / 'run'}", "optimizer.lr=1")
    assert "not with optimizer.lr=1" in message
    assert f"init_from={tmp_path / 'run'}" in message
    assert "not with trainer.devices=2" in refused(f"resume={tmp_path / 'run'}", "trainer.devices=2")
    checkpoints = [*(tmp_path / "run/checkpoints").glob("*.ckpt")]
    for file in checkpoints:
        file.write_bytes(b"damaged")
    assert "are all damaged: delete" in refused(f"resume={tmp_path / 'run'}")
    for file in checkpoints:
        file.unlink()
    assert "has ended, and its checkpoints are gone" in refused(f"resume={tmp_path / 'run'}")
    (tmp_path / "run/metrics.json").unlink()
    assert "no checkpoint to continue from" in refused(f"resume={tmp_path / 'run'}")


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; sys.argv = ['thaw.train', '--help']\n"
        "import thaw.train, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "thaw.train.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "freezing: bitfit, chain_thaw" in done.stdout
    assert done.stdout.rstrip().endswith("False")


INTERRUPTED = """
import os, signal, sys


class Interrupt:
    def find_spec(self, name, *args):
        if name == "{module}":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)


signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells have ignored in the background
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    ("command", "module", "code"),
    [("train", "omegaconf", -signal.SIGINT), ("train", "torch", 130), ("evaluate", "torch._C", 130)],
)
def test_ctrl_c_in_the_first_seconds_prints_no_traceback(tmp_path: Path, command: str, module: str, code: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED.format(module=module))
    (tmp_path / "config.yaml").touch()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", f"thaw.{command}", *(["run=."] if command == "evaluate" else [])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == ("SIGINT: stopped\n" if code > 0 else "")


def test_a_grid_leaves_numbered_trials_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ("-m", f"hydra.sweep.dir={tmp_path / 's'}", "freezing=head_only,full", "freezing.epochs=1,0", "seed=3")
    monkeypatch.setattr(sys, "argv", ["thaw.train", *grid, *TINY])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 1, "two trials failed"
    summary = (tmp_path / "s/summary.md").read_text()
    assert "4 trials: 2 finished, 2 failed. " in (tmp_path / "s/sweep.html").read_text()
    assert (tmp_path / "s/summary.png").stat().st_size
    printed = capsys.readouterr().out
    assert summary.splitlines()[-1] in printed
    assert "│ trial │ freezing" in printed.replace("┃", "│")
    assert "| trial | freezing | freezing.epochs | status | best accuracy/val | epoch |" in summary
    assert "| 1 | head_only | 0 | failed: freezing.epochs is a whole number from 1 on" in summary
    assert "2 of 4 trials failed" in summary
    results = [json.loads((tmp_path / f"s/{number}/metrics.json").read_text()) for number in (0, 2)]
    best = max((0, 2), key=lambda number: results[number // 2]["best"])
    assert f"best: trial {best}, accuracy/val = " in summary
    assert len((tmp_path / "s/summary.csv").read_text().splitlines()) == 5

    files = {file: file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()}
    monkeypatch.setattr(sys, "argv", ["thaw.train", *grid, *TINY, "optimizer.lr=0.1"])
    with pytest.raises(SystemExit, match="holds the trials of a sweep already: resume=auto goes on with it"):
        main()
    assert {file: file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()} == files


BUGGY = """
from thaw.data.digits import Digits


class Mine(Digits):
    version = "1"

    def __init__(self):
        {init}
        super().__init__()

    def __getitem__(self, index):
        if index:  # the first sample is read before training
            {getitem}
        return super().__getitem__(index)
"""


@pytest.fixture
def printed_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Train on a user's own data class with this bug; gives what the command leaves with."""

    def run(getitem: str = "pass", init: str = "pass", *overrides: str) -> str:
        (tmp_path / "users_data.py").write_text(BUGGY.format(getitem=getitem, init=init))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "users_data", raising=False)
        choices = (*TINY, "data._target_=users_data.Mine", f"run_folder={tmp_path / 'r'}", *overrides)
        monkeypatch.setattr(sys, "argv", ["thaw.train", *choices])
        with pytest.raises(SystemExit) as leaving:
            main()
        assert isinstance(leaving.value.code, str), "exit code 1, this text on stderr"
        return leaving.value.code

    return run


def test_a_typing_error_inside_a_constructor_is_a_bug(printed_bug: Callable[..., str], tmp_path: Path) -> None:
    printed = printed_bug(init="super().__init__(colour=1)")
    assert printed.startswith("Traceback")
    assert f'File "{tmp_path}/users_data.py", line 9, in __init__' in printed


@pytest.mark.parametrize(
    ("statement", "error"),
    [("raise ValueError('odd label')", "ValueError: odd label"), ("{}['label']", "KeyError: 'label'")],
)
def test_a_bug_in_a_user_s_data_shows_her_frame_and_not_those_of_libraries(
    printed_bug: Callable[..., str], tmp_path: Path, statement: str, error: str
) -> None:
    printed = printed_bug(getitem=statement)
    lines = printed.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'  File "{tmp_path}/users_data.py", line 14, in __getitem__' in lines
    assert f"    {statement}" in lines
    assert error in lines
    assert "site-packages" not in printed
    assert any(line.startswith("  ... ") and "lightning" in line for line in lines)
    assert len(lines) < 50
    log = (tmp_path / "r/train.log").read_text()
    assert log.count("/lightning/pytorch/") > 10
    assert log.splitlines()[-1] == error


def test_a_bug_in_a_constructor_is_no_error_of_hydra(printed_bug: Callable[..., str], tmp_path: Path) -> None:
    printed = printed_bug(init="raise KeyError('rows')")
    assert f'File "{tmp_path}/users_data.py", line 9, in __init__' in printed
    assert printed.splitlines()[-2] == "KeyError: 'rows'"
    assert "InstantiationException" not in printed
    assert "The above exception" not in printed


def test_a_user_error_in_a_constructor_is_one_message(printed_bug: Callable[..., str]) -> None:
    raises_one = "from thaw.errors import UserError; raise UserError('name a folder')"
    assert printed_bug(init=raises_one) == "error: name a folder"


def test_the_whole_traceback_can_be_asked_for(printed_bug: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_TRACEBACK", "1")
    printed = printed_bug(getitem="{}['label']")
    assert printed.count("/lightning/pytorch/") > 10
    assert printed.splitlines()[-1] == "KeyError: 'label'"


def test_a_keyword_that_a_class_does_not_take_is_met_with_those_it_takes(refused: Refused) -> None:
    message = refused(*TINY, "+data.colour=red")
    assert "data: " in message
    assert "unexpected keyword argument 'colour'" in message
    assert "takes " in message
    assert "test_fraction" in message


def test_a_full_disk_is_one_message(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/last.ckpt")

    monkeypatch.setattr("thaw.training.checkpoint_io.torch.save", full)
    message = refused(*TINY, "freezing=head_only", "freezing.epochs=1")
    assert message.endswith(".ckpt: No space left on device. Make room on that disk. There is no checkpoint yet.")


@pytest.mark.run
@pytest.mark.parametrize("arguments", [["backbone=resnet9000"], ["data.fold=9"], ["freezing=surgical"]])
def test_a_real_command_line_leaves_with_code_1_and_one_message(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "thaw.train", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr + done.stdout


def arguments_in(message: str, key: str) -> list[str]:
    """The arguments `key=...` of a command in a message, as a shell hands them on."""
    pasted = re.search(rf".* (['\"]?{key}=.*)", message)
    assert pasted is not None
    return shlex.split(pasted[1].split(" continues")[0])


@pytest.mark.parametrize("value", ["/x/señal", "a (1).jpg", "it's #1"])
def test_values_that_hydra_cannot_read_come_with_what_to_type(refused: Refused, config: Config, value: str) -> None:
    message = refused("data=image_folder", f"data.root={value}")
    assert config("data=image_folder", *arguments_in(message, "data.root")).data.root == value


@pytest.mark.parametrize("value", ["[head,stem", "{a: 1", "choice(1,", "'stem"])
def test_other_values_that_hydra_cannot_read_come_with_what_is_wrong(refused: Refused, value: str) -> None:
    message = refused("freezing=surgical", f"freezing.train={value}")
    assert "quote the value" not in message
    assert f"error: Hydra does not understand freezing.train={value}: " in message


AS_TYPED = ["what's up, doc? #1 @home ${x}", "a\\", '"so"', "so = so", "[1, 2]", "null", "007", "1,2", "-", ""]


@pytest.mark.parametrize("text", AS_TYPED)
def test_the_input_of_predict_is_taken_as_typed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    (tmp_path / "config.yaml").touch()
    monkeypatch.setattr("thaw.predict.predict", lambda cfg: taken.append(cfg.input))
    monkeypatch.setattr(sys, "argv", ["thaw.predict", f"run={tmp_path}", f"input={text}"])
    import_module("thaw.predict").main()
    assert taken == [text]


def test_what_was_typed_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [r'run_id="\${x}"', "data.seed=${seed}", "data.labels_per_class=null"]
    recorded: list[str] = []
    monkeypatch.setattr("thaw.train.train", lambda cfg: recorded.extend(typed_overrides()) or {})
    monkeypatch.setattr(sys, "argv", ["thaw.train", *typed])
    main()
    assert recorded == typed


def test_commands_to_paste_name_folders_with_odd_names(refused: Refused, config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "it's my, run (1)"
    train(config(*TINY, *NOISE, "freezing=head_only", "freezing.epochs=1", for_hydra("run_folder", folder)))
    again = next(line for line in (folder / "train.log").read_text().splitlines() if "thaw.evaluate" in line)
    assert config(*arguments_in(again, "run"), name="evaluate").run == str(folder)
    message = refused(*TINY, *NOISE, for_hydra("run_folder", folder))
    assert config(*arguments_in(message, "resume")).resume == str(folder)
    (folder / "weights.safetensors").unlink()
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ValueError, match=r"did not end\. Type python -m thaw\.train ") as unfinished:
        run_with_weights(str(folder))
    assert config(*arguments_in(str(unfinished.value), "resume")).resume == str(folder)


def test_a_new_run_takes_the_backbone_of_the_run_that_it_starts_from(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config(*TINY, *NOISE, "freezing=head_only", "freezing.epochs=1"))
    others = [word for word in TINY if not word.startswith("backbone")]
    words = (
        *others,
        *NOISE,
        f"init_from={tmp_path}/run",
        "freezing=full",
        "freezing.epochs=1",
        f"run_folder={tmp_path}/two",
    )
    monkeypatch.setattr(sys, "argv", ["thaw.train", *words])
    main()
    assert config(f"run={tmp_path}/two", name="evaluate")
    assert "tests.tiny.backbone" in (tmp_path / "two/config.yaml").read_text()


def test_a_resumed_run_takes_keys_of_its_own_plan(
    config: Config, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config(*TINY, *NOISE, "freezing=head_only", "freezing.epochs=1"))
    run = tmp_path / "run"
    assert "It has freezing.epochs" in refused(f"resume={run}", "freezing.probe_epochs=2")
    plan = "freezing.phases=[{epochs: 1, train: [head]}, {epochs: 1, train: ['*']}]"
    monkeypatch.setattr(sys, "argv", ["thaw.train", f"resume={run}", "freezing=phases", plan])
    main()
    longer = plan.replace("]}]", "]}, {epochs: 1, train: [head]}]")
    monkeypatch.setattr(sys, "argv", ["thaw.train", f"resume={run}", longer])
    main()
    assert len(json.loads((run / "phases.json").read_text())) == 3
