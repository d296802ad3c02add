"""A text classifier for transformers: an encoder or decoder, its pooled token states, and one linear layer.

transformers has no such class: its own take one token, through layers of their own. An export to Hugging Face holds
this file, config.json names it, and `trust_remote_code=True` lets transformers use it. It needs nothing of thaw.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

# B texts, T tokens of the longest, D wide, C classes


class PooledConfig(PreTrainedConfig):
    """`encoder`: configuration of the network below the head. `pooling`: `cls`, `mean` or `last`."""

    model_type = "pooled_classifier"
    sub_configs: ClassVar = {"encoder": AutoConfig}

    def __init__(self, encoder: Any = None, pooling: str = "mean", **others: Any):
        self.encoder = AutoConfig.for_model(**encoder) if isinstance(encoder, dict) else encoder
        self.pooling = pooling
        super().__init__(**others)


class PooledClassifier(PreTrainedModel):
    """`input_ids` and `attention_mask`, both (B, T) and padded on the right -> logits (B, C)."""

    config_class = PooledConfig
    base_model_prefix = "backbone"

    def __init__(self, config: Any):
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.encoder, trust_remote_code=False)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None
        self.head = torch.nn.Linear(config.encoder.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        """Logits (B, C), and the mean cross-entropy with `labels` (B,). The run had no `token_type_ids`: not used."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.backbone(input_ids=input_ids, attention_mask=mask).last_hidden_state
        logits = self.head(self._pooled(states, mask))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.config.pooling == "cls":
            return states[:, 0]
        if self.config.pooling == "last":
            return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
