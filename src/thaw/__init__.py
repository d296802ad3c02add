"""Fine-tune pretrained networks on labelled images and texts."""

__version__ = "0.1.0"
