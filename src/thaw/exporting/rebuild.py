"""Rebuild an exported network with its own library: the recipe for it, and the tensors by the library's names."""

from torch import Tensor

from thaw.errors import UserError
from thaw.exporting.inference import InferenceModel
from thaw.models.backbone import RebuildRecipe
from thaw.models.library_names import library_names, linear_name, torch_expression


def require_recipe(model: InferenceModel) -> RebuildRecipe:
    """The recipe that builds the network without thaw.

    Raises:
        UserError: if the backbone has none.
    """
    if model.recipe is None:
        raise UserError(
            "this backbone has no `recipe`, which says how to build its network without thaw, so nobody could load "
            "its parameters. Type format=onnx or format=exported_program."
        )
    return model.recipe


def building_code(model: InferenceModel, folder: str) -> tuple[list[str], list[str]]:
    """Modules to import, and lines of Python that make `network`. `folder` is where the exported files are."""
    recipe, head = require_recipe(model), model.network.head
    code = torch_expression(head)
    imports = ["torch"] if code else [model.head_code.partition("(")[0].rpartition(".")[0]]
    code = code or model.head_code
    build = [line.format(num_classes=len(model.class_names), folder=folder, head=code) for line in recipe.build]
    if recipe.head is not None and linear_name(head) is None:
        build.append(f"network.set_submodule({recipe.head!r}, {code})")
    return [*recipe.imports, *imports], build


def library_tensors(model: InferenceModel) -> dict[str, Tensor]:
    """Parameters and buffers of the network, contiguous, by the names that they have in `building_code`'s network."""
    names = library_names(model.network, require_recipe(model))
    return {names[name]: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
