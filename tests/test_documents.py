"""Every command in README and docs is one that exists, with keys and choices that exist: each is composed."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from omegaconf import OmegaConf, open_dict

from thaw.arguments import for_hydra
from thaw.config.command import require_read, with_own_key
from thaw.config.conf_folder import CONF
from thaw.config.overrides import dotted_keys

ROOT = CONF.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
NOT_TO_TYPE = {"errors.md", "faults.md"}
"""Pages whose commands are wrong on purpose, or go on from a fault; tests of their own read them."""
SCRIPTS = re.compile(r"(?:OMP_NUM_THREADS=\d )?python (scripts/\w+\.py)")
MAKEFILES = [ROOT / "Makefile", ROOT / "src/thaw/new_project/thin/Makefile"]
TARGETS = re.findall(r"^([a-z-]+):.*## ", "".join(file.read_text() for file in MAKEFILES), re.MULTILINE)
OF_TARGET = {"sweep": "train"}
PARSER = OverridesParser.create()


def code_of(page: Path) -> list[str]:
    """The lines of code of a page, each whole: of fenced blocks, and between backquotes."""
    lines, fence = [], ""
    for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence in ("```bash", "```console"):
            lines.append(line)
        elif not fence:
            lines += re.findall(r"`([^`]+)`", line)
    return lines


def commands(page: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The commands of thaw on a page: (name, words that follow)."""
    found = {}
    for line in code_of(page):
        if not (start := re.search(r"python -m thaw\.(\w+)|make ([a-z-]+)", line)):
            continue
        words = shlex.split(line[start.end() :], comments=True)
        name = start[1] or start[2]
        if start[2]:
            assert name in TARGETS, f"{page.name}: {line}"
            words = [part for word in words for part in (shlex.split(word[5:]) if word.startswith("ARGS=") else [word])]
            words = [word for word in words if not re.match("(VENV|PYTHON)=", word)]
            words += ["-m"] if name == "sweep" else []
            name = OF_TARGET.get(name, name)
        found[name, tuple(words)] = line
    return [command for command in found if (CONF / f"{command[0]}.yaml").is_file()]


def overrides_of(name: str, words: tuple[str, ...]) -> list[str]:
    """What a command chooses, the first of each grid; words with a place to fill in are left out."""
    chosen = []
    for word in (with_own_key(name, word) for word in words):
        key, equals, value = word.partition("=")
        if (not equals and not word.startswith("~")) or re.search(r"\.\.\.|[<>]", word) or key.startswith(("-", "|")):
            continue
        if name == "predict" and key == "input":
            word = for_hydra(key, value)
        override = PARSER.parse_override(word)
        if override.is_sweep_override():
            value = override.value()
            first = value.start if isinstance(value, IntervalSweep) else next(iter(override.sweep_string_iterator()))
            word = f"{key}={first}"
        chosen.append(word)
    return chosen


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in NOT_TO_TYPE], ids=lambda page: page.name)
def test_every_command_can_be_typed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    for path, text in re.findall(r"```yaml\n# (conf/\S+?\.yaml)[^\n]*\n(.*?)```", page.read_text(), re.DOTALL):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for name, words in commands(page):
        mode = "MULTIRUN" if "-m" in words else "RUN"
        overrides = [*overrides_of(name, words), f"hydra.searchpath=[file://{tmp_path}/conf]", f"hydra.mode={mode}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(name, overrides, return_hydra_config=True)
        monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        require_read(cfg, name)


def keys_of_yaml() -> set[str]:
    """All keys that a user may type: of the commands, and of every option of every group."""
    keys = set()
    for file in CONF.rglob("*.yaml"):
        group = ".".join(part for part in file.relative_to(CONF).parent.parts if part != "shared")
        group = "" if "@package _global_" in file.read_text() else group
        own = OmegaConf.load(file)
        own_keys = {part for key in dotted_keys(own) for part in (key, key.rpartition(".")[0])}
        keys |= {f"{group}.{key}" if group else key for key in (*own_keys, *map(str, own))} | {group}
    return keys


def test_every_dotted_key_that_a_page_names_exists() -> None:
    known = keys_of_yaml()
    assert {"optimizer.lr", "freezing", "run", "data.val_fraction"} <= known
    pages = [page for page in PAGES if page.name not in NOT_TO_TYPE]
    words = {(page.name, word) for page in pages for code in code_of(page) for word in code.split()}
    named = {(page, match[1]) for page, word in words if (match := re.match(r"['\"]?([a-z_]+(?:\.[a-z_]+)+)=.", word))}
    unknown = [(page, key) for page, key in sorted(named) if key not in known]
    assert unknown == []


def test_the_sweep_of_wandb_runs_commands_that_exist() -> None:
    sweep = yaml.safe_load((ROOT / "scripts/wandb_sweep.yaml").read_text())
    *_, module, _, last = sweep["command"]
    assert (module, last) == ("thaw.train", "${args_no_hyphens}")
    for choose in (min, max):
        chosen = {key: choose(space.get("values", [space.get("min")])) for key, space in sweep["parameters"].items()}
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", ["logger=wandb", *(f"{key}={value}" for key, value in chosen.items())])
        assert sweep["metric"]["name"] == cfg.monitor.metric


def test_every_script_that_is_named_exists() -> None:
    named = {script for page in PAGES for script in SCRIPTS.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert [script for script in sorted(named) if not (ROOT / script).is_file()] == []
