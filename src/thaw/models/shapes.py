"""Output shapes of the stages, without computing any numbers."""

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call

from thaw.errors import UserError
from thaw.models.network import Network
from thaw.types import ImageSpec, InputSpec


def example_inputs(spec: InputSpec, device: torch.device | str = "cpu") -> Any:
    """Two samples of zeros: images (2, C, H, W), or texts of 8 padding tokens."""
    if isinstance(spec, ImageSpec):
        return torch.zeros(2, spec.channels, spec.size_px, spec.size_px, device=device)
    ids = torch.full((2, 8), spec.pad_id, device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def require_input(network: nn.Module, spec: ImageSpec) -> None:
    """Raise UserError if an image network does not take images of the size in `spec`."""
    training = network.training
    try:
        _call_without_numbers(network.eval(), spec)
    except Exception:  # whatever the network's own code raises
        try:
            with torch.no_grad():  # some networks only fail because the tensors hold no numbers
                network(example_inputs(spec))
        except Exception as error:
            raise UserError(
                f"{type(network).__name__} does not take images of {spec.size_px} x {spec.size_px} pixels and "
                f"{spec.channels} channels ({(str(error) or type(error).__name__).splitlines()[0]}): type "
                f"backbone.image_size_px=<another size>"
            ) from error
    finally:
        network.train(training)


def output_shapes(network: Network, spec: InputSpec) -> dict[str, tuple[int, ...]]:
    """Shape of the last output of each stage, without the batch; stages whose output is not seen are left out.

    Puts the network into evaluation mode.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: Any) -> None:
        if isinstance(tensor := output[0] if isinstance(output, tuple) else output, Tensor):
            shapes[name] = tuple(tensor.shape[1:])

    hooks = [
        network.get_submodule(path).register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, stage in network.eval().stages.items()
        for path in stage.modules
    ]
    try:
        _call_without_numbers(network, spec)
    except Exception:  # of networks that look at their numbers
        shapes.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def called_modules(network: Network, spec: InputSpec) -> set[str]:
    """Paths of the modules that the forward of `network` calls; of others it may use the parameters directly.

    Puts the network into evaluation mode.
    """
    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, path=path: called.add(path))
        for path, module in network.eval().named_modules()
    ]
    try:
        _call_without_numbers(network, spec)
    except Exception:  # of networks that look at their numbers
        with torch.no_grad():
            network(example_inputs(spec, next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _call_without_numbers(network: nn.Module, spec: InputSpec) -> None:
    """Call a network on two samples, with tensors that have shapes and no numbers.

    First with all of them on the meta device, which is four times faster for convolutional networks. There no code may
    look at a number, as that of some language models does; fake tensors let it where the number does not depend on any.
    """
    # Each module once: functional_call would leave a module that stands at two places on the meta device.
    shapes = {
        f"{path}.{name}".lstrip("."): tensor.to("meta")
        for path, module in network.named_modules()
        for name, tensor in chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    }
    with torch.no_grad():
        try:
            functional_call(network, shapes, (example_inputs(spec, "meta"),), tie_weights=False)
        except Exception:  # whatever the network's own code raises
            with FakeTensorMode(allow_non_fake_inputs=True):
                network(example_inputs(spec))
