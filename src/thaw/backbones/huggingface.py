"""Encoders (BERT, RoBERTa ...) and decoders (GPT-2, Llama ...) of Hugging Face (`pip install -e ".[text]"`)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from thaw.backbones.backbone import Backbone, Library, TokenSpec
from thaw.backbones.layers import staged
from thaw.backbones.weights import load_tensors, log, read_weights

LOGITS = {
    "cls": "network.head(network(**inputs).last_hidden_state[:, 0])",
    "mean": "network.head((network(**inputs).last_hidden_state * inputs['attention_mask'][..., None]).sum(1) "
    "/ inputs['attention_mask'].sum(1, keepdim=True))",
    "last": "network.head(network(**inputs).last_hidden_state"
    "[torch.arange(len(inputs['input_ids'])), inputs['attention_mask'].sum(1) - 1])",
}
"""Of AutoModel's network and a linear layer, by pooling."""


def huggingface(
    name: str,
    weights: str | Path | None = "default",
    pooling: str = "mean",
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    input_spec: TokenSpec | None = None,
) -> Backbone:
    """Token ids and mask, both (B, T), to the features (B, D) that `pooling` (see `Pool`) makes of AutoModel's states.

    `name`: a folder, or an id on the hub, downloaded once. `weights`: "default" (those of `name`), None or "none"
    (random), or a file. `options`: other values in its configuration. `settings` and `input_spec`: as a run recorded
    them; then `name` need not be there. Only safetensors are read, and no code that comes with the weights is run.
    Raises ValueError for what is no such network, OSError where it cannot be had.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError('backbone=huggingface needs transformers: type pip install -e ".[text]"') from error
    with _quiet(), _refused(name):
        if settings is None:
            configuration = _settings(transformers, name, options or {})
            input_spec = _token_spec(transformers, name, configuration)
        else:
            configuration = transformers.AutoConfig.for_model(**settings)
        assert input_spec is not None
        configuration.use_cache = False  # of past tokens, for writing texts
        recorded = configuration.to_dict()
        if weights == "default":
            network = _pretrained(transformers, name, configuration)
        else:
            network = transformers.AutoModel.from_config(configuration, dtype="float32")
    has_pooler = getattr(network, "pooler", None) is not None
    if has_pooler:
        network.pooler = None  # another way to pool, never used here
    if weights not in (None, "none", "default"):
        load_tensors(network, _named(network, read_weights(str(weights))), str(weights))
    if (positions := _positions(network)) < input_spec.max_length_tokens:
        input_spec = TokenSpec(input_spec.tokenizer, input_spec.pad_id, positions)
    width = int(configuration.hidden_size)
    found = staged(network, pooling)
    library = _library(width, pooling, has_pooler, found.names)
    return Backbone(found.stages, width, input_spec, library, recorded)


def _settings(transformers: Any, name: str, options: Mapping[str, Any]) -> Any:
    configuration, unknown = transformers.AutoConfig.from_pretrained(
        name, return_unused_kwargs=True, trust_remote_code=False, **options
    )
    if unknown:
        raise ValueError(f"backbone.options: the configuration of {name} has no {', '.join(unknown)}")
    if configuration.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder with a decoder ({configuration.model_type}): name one that is either")
    if not hasattr(configuration, "hidden_size") or not hasattr(configuration, "vocab_size"):
        raise ValueError(f"{name} ({configuration.model_type}) does not read texts: name a language model")
    return configuration


def _token_spec(transformers: Any, name: str, configuration: Any) -> TokenSpec:
    tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of {name} ({type(tokenizer).__name__}) is a program and no tokenizer.json: exports could "
            f"not carry it. Name a network that has one."
        )
    if len(tokenizer) > configuration.vocab_size:
        raise ValueError(
            f"the tokenizer of {name} knows {len(tokenizer)} tokens, its network {configuration.vocab_size}: they "
            f"are not of one network"
        )
    known = (configuration.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    pad_id = next(one for one in known if one is not None)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # the length is ours to choose
    backend.no_padding()
    return TokenSpec(backend.to_str(), int(pad_id), int(tokenizer.model_max_length))


def _pretrained(transformers: Any, name: str, configuration: Any) -> Any:
    network, report = transformers.AutoModel.from_pretrained(
        name,
        config=configuration,
        use_safetensors=True,
        trust_remote_code=False,
        dtype="float32",
        output_loading_info=True,
    )
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise ValueError(
            f"the weights of {name} leave {len(missing)} tensors of its network unfilled: {', '.join(missing[:8])} ..."
        )
    log.info(
        "%s: %d tensors in the network, %d surplus", name, len(network.state_dict()), len(report["unexpected_keys"])
    )
    return network


def _named(network: Any, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A file of a network with some head has the tensors of the network without it under one prefix: `bert.`."""
    prefix = f"{network.base_model_prefix}."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return own or tensors


def _positions(network: Any) -> int:
    """How many tokens a text may have for the table of positions."""
    most = getattr(network.config, "max_position_embeddings", None) or 2**30
    tables = [part for path, part in network.named_modules() if path.endswith("position_embeddings")]
    padding = next((part.padding_idx for part in tables if getattr(part, "padding_idx", None) is not None), None)
    return most if padding is None else most - padding - 1  # RoBERTa counts from behind the padding's index


def _library(width: int, pooling: str, has_pooler: bool, names: Mapping[str, str]) -> Library:
    build = [
        "network = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained({folder!r}))",
        *(["network.pooler = None"] if has_pooler else []),
        f"network.head = torch.nn.Linear({width}, {{num_classes}})",
    ]
    return Library(["torch", "transformers"], build, "head", names, LOGITS[pooling])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own reports: what becomes of the weights is said here, or is an error."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


@contextmanager
def _refused(name: str) -> Iterator[None]:
    """Whatever the library raises on what is not there or not what it should be, as an error with what to type."""
    try:
        yield
    except (ValueError, KeyError, RuntimeError) as error:
        if Path(name).exists() and not (Path(name) / "config.json").is_file():
            raise ValueError(f"{name} is no folder of a Hugging Face network: it has no config.json") from error
        if "trust_remote_code" in str(error):
            raise ValueError(f"{name} comes with code of its own, which is never run: name another network") from error
        raise ValueError(str(error)) from error
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        if Path(name).is_dir():
            raise OSError(
                f"{name}: {reason} Only safetensors are read: a folder holds config.json, tokenizer.json and "
                f"model.safetensors."
            ) from error
        raise OSError(
            f"{name} is no folder, and could not be had from the hub ({reason}).\nOn a machine with internet type "
            f"`hf download {name} --local-dir <folder>`, and then backbone.name=<folder>."
        ) from error
