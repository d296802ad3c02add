"""The lines of Python that load an exported file."""

from pathlib import Path

from thaw.errors import UserError
from thaw.exporting.deployed import InferenceModel
from thaw.models.backbone import Backbone, RebuildRecipe


def loading_code(deployed: InferenceModel, form: str, file: Path | str) -> list[str]:
    """They make `network`, ready for use; of parameters alone `library.logits` tells what it gives."""
    if form == "exported_program":
        return ["import torch", f"network = torch.export.load({str(file)!r}).module()"]
    if form == "onnx":
        return ["import onnxruntime", f"network = onnxruntime.InferenceSession({str(file)!r})"]
    module, read = {
        "state_dict": ("torch", f'torch.load({str(file)!r}, weights_only=True)["state_dict"]'),
        "safetensors": ("safetensors.torch", f"safetensors.torch.load_file({str(file)!r})"),
    }[form]
    library = require_library(deployed.backbone)
    return [
        f"import {', '.join(dict.fromkeys([module, *library.imports]))}",
        *(line.format(num_classes=len(deployed.class_names), folder=str(Path(file).parent)) for line in library.build),
        f"network.eval().load_state_dict({read})",
    ]


def require_library(backbone: Backbone) -> RebuildRecipe:
    if backbone.library is None:
        raise UserError(
            "this backbone has no `library`, which says how to build its network without thaw: parameters alone would "
            "be of no use. Type format=onnx or format=exported_program."
        )
    return backbone.library
