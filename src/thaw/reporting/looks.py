"""Where the network looked: a heat map over an image, or a weight for each token of a text.

B: samples, C: outputs or channels, H, W: height and width of the network's input, T: tokens.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from thaw.data.module import DataModule
from thaw.data.text_module import TextDataModule
from thaw.models.network import Network
from thaw.reporting.report import Look
from thaw.reporting.results import Results
from thaw.types import BatchRequest

SHOWN_PX = 160
"""Height and width of a heat map in a report."""
MOST_TOKENS = 128
"""Tokens of a text that are weighed; the rest of it is not read."""
Strength = Callable[[Tensor], Tensor]
"""See `Results.strength`."""


def looks(network: Network, data: DataModule, results: Results[Any]) -> list[Look]:
    """Where the network looked in the samples that it is most wrong about, and in some that it is right about.

    Images need the package `grad-cam` and a network with feature maps; without them the list is empty.

    Args:
        network: the network, with its best weights.
        data: the samples, whose input spec is known.
        results: what the network gave on a split of `data`.
    """
    looked_at = results.looked_at()
    if not looked_at:
        return []
    indices = [int(results.outputs.indices[row]) for row, _ in looked_at]
    numbers = [number for _, number in looked_at]
    was_training = network.training
    network.eval()
    try:
        if isinstance(data, TextDataModule):
            return [
                Look(index, tokens=_tokens(network, data, index, number, results.strength))
                for index, number in zip(indices, numbers, strict=True)
            ]
        return _images(network, data, indices, numbers)
    finally:
        network.train(was_training)


def _images(network: Network, data: DataModule, indices: Sequence[int], numbers: Sequence[int]) -> list[Look]:
    batch = data.dataset()[BatchRequest(list(indices), None)]
    inputs, normalised = batch.inputs, data.on_after_batch_transfer(batch, 0).inputs
    assert isinstance(inputs, Tensor)
    assert isinstance(normalised, Tensor)
    maps = heat_maps(network, normalised.to(next(network.parameters())), numbers)
    if maps is None:
        return []
    return [
        Look(index, image=overlay(image.numpy(), heat))
        for index, image, heat in zip(indices, inputs, maps, strict=True)
    ]


def heat_maps(network: Network, inputs: Tensor, numbers: Sequence[int]) -> NDArray[np.floating] | None:
    """Grad-CAM (Selvaraju et al. 2017) of the last feature maps of the backbone: (B, H, W), from 0 to 1.

    None if the package `grad-cam` is not installed, or the network has no feature maps.

    Args:
        network: in evaluation mode.
        inputs: normalised images (B, C, H, W).
        numbers: the output that is explained of each image, B of them.
    """
    try:
        from pytorch_grad_cam import GradCAM  # here, because it is an extra
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        return None
    layer = last_feature_maps(network, inputs[:1])
    if layer is None:
        return None
    with GradCAM(network, [layer]) as explain, torch.enable_grad():
        targets = [ClassifierOutputTarget(number) for number in numbers]
        found = explain(inputs.detach().requires_grad_(), targets)  # gradients reach the maps also of frozen stages
    network.zero_grad(set_to_none=True)
    return found


def last_feature_maps(network: Network, image: Tensor) -> nn.Module | None:
    """The last module of the backbone that gives square maps (1, C, H, H) of more than one pixel, for an image.

    None if there is none, as in transformers.
    """
    layers: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
            layers.append(module)

    hooks = [module.register_forward_hook(note) for module in network.backbone.modules()]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return layers[-1] if layers else None


def overlay(image: NDArray[np.uint8], heat: NDArray[np.floating]) -> bytes:
    """A JPEG of an image (C, H, W), as the network sees it, below its heat map (H, W) of 0 to 1."""
    pixels = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    colours = colormaps["inferno"](heat)[..., :3] * 255
    strength = 0.15 + 0.5 * heat[..., None]
    mixed = Image.fromarray((pixels * (1 - strength) + colours * strength).astype(np.uint8))
    file = BytesIO()
    mixed.resize((SHOWN_PX, SHOWN_PX), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def _tokens(
    network: Network, data: TextDataModule, index: int, number: int, strength: Strength
) -> list[tuple[str, float]]:
    from tokenizers import Tokenizer  # not needed for images, and not always installed

    assert data.tokens is not None
    batch = data.tokens.batch([index])
    weights = occlusion(network, batch, number, strength)
    tokenizer = Tokenizer.from_str(data.input_spec.tokenizer)
    ids = batch["input_ids"][0, : len(weights)].tolist()
    return [(tokenizer.id_to_token(token) or "?", weight) for token, weight in zip(ids, weights, strict=True)]


@torch.no_grad()
def occlusion(network: nn.Module, inputs: dict[str, Tensor], number: int, strength: Strength) -> list[float]:
    """How much the strength of an output falls if each token is hidden, scaled to -1..1 (Zeiler & Fergus 2014).

    Args:
        network: takes `input_ids`, `attention_mask` ..., each (B, T), and gives outputs (B, C).
        inputs: one text, or one pair of texts.
        number: of the output.
        strength: see `Results.strength`.
    """
    device = next(network.parameters()).device
    length = min(int(inputs["attention_mask"].sum()), MOST_TOKENS)
    inputs = {name: tensor[:, :length].to(device).repeat(length + 1, 1) for name, tensor in inputs.items()}
    masks = inputs["attention_mask"]
    hidden = torch.arange(length, device=device)
    masks[hidden, hidden] = 0  # the last row hides nothing
    rows = zip(*(tensor.split(32) for tensor in inputs.values()), strict=True)
    outputs = torch.cat([network(dict(zip(inputs, part, strict=True))).float() for part in rows])
    strengths = strength(outputs)[:, number]
    falls = strengths[-1] - strengths[:-1]
    return (falls / falls.abs().max().clamp(min=1e-9)).tolist()
