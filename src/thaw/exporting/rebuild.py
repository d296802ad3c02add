"""Rebuild an exported network with its own library: the recipe for it, and the tensors by the library's names."""

from torch import Tensor, nn

from thaw.errors import UserError
from thaw.exporting.inference import InferenceModel
from thaw.models.backbone import RebuildRecipe


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
    place, linear = require_recipe(model).head, linear_name(model.network.head)
    tensors = {}
    for name, tensor in model.network.state_dict().items():
        part, _, path = name.partition(".")
        if place is not None and part == "head":
            name = f"{place}.{path if linear is None else path.removeprefix(linear)}"
        elif place is not None:
            name = path
        tensors[name] = tensor.contiguous()
    return tensors


def linear_name(head: nn.Module) -> str | None:
    """Prefix of the only layer's parameters, if a head is one linear layer in evaluation; None if it is more."""
    layers = [
        (name, module)
        for name, module in head.named_modules()
        if not isinstance(module, (nn.Sequential, nn.Dropout, nn.Identity))
    ]
    if torch_expression(head) is None or len(layers) != 1:
        return None
    name, layer = layers[0]
    return (name and f"{name}.") if isinstance(layer, nn.Linear) and layer.bias is not None else None


def torch_expression(module: nn.Module) -> str | None:
    """Python that makes a module with the same settings; None if it is not made of torch's own modules alone."""
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind:
        return None
    if isinstance(module, nn.Sequential):
        parts = [torch_expression(part) for part in module]
        is_numbered = [name for name, _ in module.named_children()] == list(map(str, range(len(parts))))
        return None if None in parts or not is_numbered else f"torch.nn.Sequential({', '.join(map(str, parts))})"
    return None if any(module.children()) else f"torch.nn.{kind.__name__}({module.extra_repr()})"
