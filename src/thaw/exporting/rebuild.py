"""Rebuild an exported network with its own library: the recipe for it, and the tensors by the library's names."""

from torch import Tensor

from thaw.errors import UserError
from thaw.exporting.inference import InferenceModel
from thaw.models.backbone import RebuildRecipe
from thaw.models.network import Network


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


def library_tensors(network: Network, recipe: RebuildRecipe) -> dict[str, Tensor]:
    """Parameters and buffers of a network, contiguous, by the names that its own library gives them.

    The head's linear layer is under `recipe.head`; without one the names are those of `Network`.
    """
    tensors = {}
    for name, tensor in network.state_dict().items():
        if recipe.head is not None:
            part, path = name.split(".", 1)
            name = path if part == "backbone" else f"{recipe.head}.{path.rpartition('.')[2]}"
        tensors[name] = tensor.contiguous()
    return tensors
