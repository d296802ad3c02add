"""Heads: the last stage of a network, new for the task. Features (B, num_features) -> outputs (B, num_outputs).

A head of your own is any function or class that takes these two numbers first; see `conf/head/`.
"""

from torch import nn

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


def linear(num_features: int, num_outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """One layer, behind dropout."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_outputs))


def mlp(
    num_features: int, num_outputs: int, hidden_size: int, dropout: float = 0.0, activation: str = "gelu"
) -> nn.Sequential:
    """Two layers with dropout before each, and one of `ACTIVATIONS` between them."""
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(num_features, hidden_size),
        ACTIVATIONS[activation](),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, num_outputs),
    )
