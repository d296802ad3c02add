"""`[tool.thaw]` in pyproject.toml: configurations of a project come before thaw's."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from thaw.config.conf_folder import CONF, project_conf
from thaw.config.failures import is_user_error, message
from thaw.config.offered import own_folders, require_offered
from thaw.errors import UserError

TABLE = '[project]\nname = "birds"\n\n[tool.thaw]\nconf = "settings"\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, which is the working folder, with a head of its own and another default for the optimizer."""
    folder = tmp_path / "birds"
    for group, name, text in (
        ("head", "own", "_target_: birds.head.Own\n"),
        ("optimizer", "adamw", "_target_: torch.optim.SGD\nlr: 7\n"),
    ):
        (folder / "settings" / group).mkdir(parents=True)
        (folder / "settings" / group / f"{name}.yaml").write_text(text)
    (folder / "pyproject.toml").write_text(TABLE)
    monkeypatch.chdir(folder)
    return folder


def composed(*overrides: str) -> DictConfig:
    """What `thaw.train` would be given."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def test_a_file_of_the_project_replaces_thaws_of_the_same_name(project: Path) -> None:
    cfg = composed("head=own")
    assert cfg.optimizer._target_ == "torch.optim.SGD"
    assert cfg.optimizer.lr == 7
    assert cfg.head._target_ == "birds.head.Own"
    assert cfg.data._target_ == "thaw.data.digits.Digits"


def test_only_the_working_folder_and_only_the_table_make_a_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "settings")
    assert project_conf() is None
    monkeypatch.chdir(project)
    (project / "pyproject.toml").write_text('[project]\ndependencies = ["lightning-thaw"]\n')
    assert project_conf() is None
    assert composed().optimizer._target_ == "torch.optim.AdamW"


def test_a_file_that_replaces_the_one_it_begins_with_is_met_with_one_message(project: Path) -> None:
    (project / "settings/optimizer/adamw.yaml").write_text("defaults: [adamw]\nlr: 7\n")
    with pytest.raises(RecursionError) as raised:
        composed()
    assert is_user_error(raised.value)
    assert message(raised.value).startswith("a file of your conf/ has itself in its `defaults`")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.thaw]\n", r'takes the folder of your configurations: conf = "conf", not \{\}'),
        ('[tool.thaw]\nconf = "conv"\n', r"not \{'conf': 'conv'\}"),
        ("[tool.thaw\n", "pyproject.toml cannot be read: "),
    ],
)
def test_a_table_that_names_no_folder_is_an_error(project: Path, text: str, said: str) -> None:
    (project / "pyproject.toml").write_text(text)
    with pytest.raises(UserError, match=said):
        composed()


def test_a_run_folder_is_nobodys_project(project: Path) -> None:
    (project / "config.yaml").touch()
    with pytest.raises(UserError, match="this is a run folder"):
        composed()


def test_what_the_project_names_may_be_called_from_run_folders(project: Path) -> None:
    run = project / "runs/1"
    run.mkdir(parents=True)
    require_offered({"head": {"_target_": "birds.head.Own"}}, run)
    assert project / "settings" not in own_folders(project)  # a run folder offers nothing for itself
    (project / "pyproject.toml").unlink()
    with pytest.raises(UserError, match=r"head._target_=birds.head.Own"):
        require_offered({"head": {"_target_": "birds.head.Own"}}, run)
