"""The model card: what a colleague must know before using the file (Mitchell et al. 2019)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from thaw import __version__
from thaw.data.splits import SPLITS
from thaw.exporting.formats import FORMATS, loading_code
from thaw.exporting.inference import InferenceModel
from thaw.finetuning.phase import Plan
from thaw.finetuning.table import trained_names
from thaw.markdown import inline
from thaw.tasks.metrics import by_split


@dataclass(frozen=True)
class Origin:
    """Where a network comes from.

    Attributes:
        backbone: Name of the backbone.
        weights: The weights that training started from.
        optimizer: The optimizer and its rates, as a phrase.
        seed: The seed of the run.
        counts: Number of samples, by class and split.
        metrics: Final metrics by name and split: `accuracy/test` ...
    """

    backbone: str
    weights: str
    optimizer: str
    seed: int
    counts: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, float]


def model_card(model: InferenceModel, form: str, file: str, plan: Plan, origin: Origin) -> str:
    """Markdown text of the card for `file`. It says nothing about the machine on which it was made."""
    templates = Environment(loader=PackageLoader("thaw.exporting", ""), autoescape=select_autoescape())
    templates.filters["inline"] = inline
    return templates.get_template("model_card.md.jinja").render(
        model=model,
        origin=origin,
        phases=[
            (phase, trained_names(model.network, trained))
            for phase, trained in zip(plan.phases, plan.trained_in, strict=True)
        ],
        splits=SPLITS,
        metrics=by_split(origin.metrics),
        things=model.inputs.things,
        parameters=sum(parameter.numel() for parameter in model.network.parameters()),
        parameters_only=FORMATS[form].parameters_only,
        form=form,
        code=loading_code(model, form, Path(file)),
        preprocessing=json.dumps(model.metadata["preprocessing"], indent=2),
        version=__version__,
    )
