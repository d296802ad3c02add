"""What else than weights and a batch decides the bits of a step."""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import thaw

LIBRARIES = ("lightning", "torchvision", "timm", "transformers", "numpy")


def versions(device: torch.device, precision: str) -> dict[str, str]:
    """Of the libraries, of thaw's code and of the machine."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,  # with what it was built for
        **{name: installed for name in LIBRARIES if (installed := _version(name)) is not None},
        "thaw": _commit(Path(thaw.__file__).parent) or _version("thaw") or "of no repository",
        "device": device.type if device.type != "cuda" else torch.cuda.get_device_name(device),
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "precision": precision,
    }


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """`torch 2.11.0, now 2.12.0`, one for each."""
    names = sorted(then.keys() | now.keys())
    return [
        f"{name} {then.get(name, 'not there')}, now {now.get(name, 'not there')}"
        for name in names
        if then.get(name) != now.get(name)
    ]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """Of the repository that the code lies in, `-dirty` where it was edited since; None where it is in none."""
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")  # not just below somebody else's
        return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
