"""All else that can change the result of a step, besides configuration and data: versions, device, precision."""

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from thaw import __version__

LIBRARIES = ("lightning", "numpy", "timm", "torchvision", "transformers")


def current_versions(device: torch.device, precision: str) -> dict[str, str]:
    """Versions of libraries and of thaw's code, device, CPU and precision, by name."""
    # The code may be installed below somebody else's repository, which does not track it.
    command = (
        f"git ls-files --error-unmatch {Path(__file__).name} && git describe --always --dirty --abbrev=40 --exclude='*'"
    )
    folder = Path(__file__).parent
    try:
        git = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=20).stdout.split()
    except subprocess.TimeoutExpired:  # a slow network file system
        git = []
    libraries = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            libraries[name] = version(name)
    return {
        **libraries,
        "thaw": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # with the CUDA version, which the metadata lacks; it is no plain str
        "commit": git[-1] if len(git) == 2 else "none",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "precision": precision,
    }
