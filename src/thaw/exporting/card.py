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
from thaw.exporting.library_folders import CODE
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


def model_card(
    model: InferenceModel, form: str, file: Path, plan: Plan, origin: Origin, rounding: str | None = None
) -> str:
    """Markdown text of the card that lies beside `file`. It says nothing about the machine on which it was made.

    `rounding`: what became of the network where its numbers were rounded, as a phrase.
    """
    logits, folder = FORMATS[form].logits, repr(str(file.parent))[1:-1]
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
        logits=logits and logits(model),
        form=form,
        rounding=rounding,
        code=[line.replace(folder, ".") for line in loading_code(model, form, file)],
        own_code=file.with_name(CODE).exists(),
        preprocessing=json.dumps(model.metadata["preprocessing"], indent=2),
        version=__version__,
    )
