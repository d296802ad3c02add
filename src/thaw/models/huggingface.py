"""Encoders (BERT, RoBERTa ...) and decoders (GPT-2, Llama ...) of Hugging Face (`pip install -e ".[text]"`)."""

import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from thaw.errors import UserError
from thaw.models.backbone import Backbone, RebuildRecipe, own_options
from thaw.models.hub import hub, why_not
from thaw.models.layers import layer_stages, require_context
from thaw.models.pooling import Pool
from thaw.models.weights import load_tensors, log, read_weights, weights_choice
from thaw.types import TokenSpec

LOGITS = {
    "cls": "network.head(network(**inputs).last_hidden_state[:, 0])",
    "mean": "network.head((network(**inputs).last_hidden_state * inputs['attention_mask'][..., None]).sum(1) "
    "/ inputs['attention_mask'].sum(1, keepdim=True))",
    "last": "network.head(network(**inputs).last_hidden_state"
    "[torch.arange(len(inputs['input_ids'])), inputs['attention_mask'].sum(1) - 1])",
}
"""Expressions for the logits (B, C) of AutoModel's network with a linear layer `head`, by pooling."""

FIXED = dict.fromkeys(
    ("trust_remote_code", "return_dict", "use_cache", "output_hidden_states", "output_attentions", "dtype"),
    "thaw sets it itself",
)
"""Options of the configuration that thaw sets itself."""

KERNELS = (None, "eager", "sdpa", "flex_attention", "batched_mm", "grouped_mm")
"""Implementations of attention and of experts that are part of torch and transformers."""
NO_LIMIT = 2**30
"""Length of the longest text, in tokens, of a network that takes any."""


def huggingface(
    name: str,
    weights: str | Path | None = "default",
    pooling: str = "mean",
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    input_spec: TokenSpec | None = None,
) -> Backbone:
    """A Hugging Face network: `input_ids` and `attention_mask`, both (B, T) -> pooled features (B, D).

    Of pairs of texts, networks with an embedding of token types (BERT, ELECTRA ...) also take `token_type_ids`, (B, T).

    Only safetensors are read, and no code that comes with the weights is run.

    Args:
        name: a folder, or an id on the hub, which is downloaded once.
        weights: "default" (those of `name`), None or "none" (random), or a file or folder, see `read_weights`.
        pooling: how states become features, see `Pool`.
        options: values that replace those in the network's configuration.
        settings: configuration that a run recorded; then `name` need not exist.
        input_spec: tokenizer that a run recorded.

    Raises:
        UserError: the network cannot be found, loaded or built, or is neither an encoder nor a decoder of texts.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError('backbone=huggingface needs transformers: type pip install -e ".[text]"') from error
    weights = weights_choice(weights)
    is_here = settings is not None or Path(name).is_dir()
    with _quiet(), _user_errors(name), nullcontext() if is_here else hub():
        if settings is None:
            configuration = _configuration(transformers, name, options)
            input_spec = _token_spec(transformers, name, configuration)
        else:
            configuration = transformers.AutoConfig.for_model(**settings)
        assert input_spec is not None
        _require_own_kernels(configuration, options or {})
        configuration.use_cache = False  # the cache of past tokens is only for generating text
        network = _network(transformers, name, configuration, pretrained=weights == "default")
    has_pooler = getattr(network, "pooler", None) is not None
    if has_pooler:
        network.pooler = None  # thaw pools itself
    if weights not in (None, "default"):
        load_tensors(network, read_weights(weights), weights)
    with _user_errors(name):
        if (positions := _longest_text(network)) < input_spec.max_length_tokens:
            input_spec = replace(input_spec, max_length_tokens=positions)
        input_spec = replace(input_spec, token_types=_token_types(network))
        pool, stages = Pool(pooling), layer_stages(network)
        require_context(network, pooling)
    recorded = {**configuration.to_dict(), "dtype": "float32"}  # the weights are loaded as float32 in any case
    recorded.pop("_name_or_path", None)  # a path of this machine is private
    recipe = _recipe(width := int(configuration.hidden_size), pooling, has_pooler)
    return Backbone(network, stages, width, input_spec, pool, recipe, recorded)


def _configuration(transformers: Any, name: str, options: Mapping[str, Any] | None) -> Any:
    chosen = own_options(options, FIXED)
    if (encoder := _encoder_of_export(name)) is not None:
        configuration, unknown = transformers.AutoConfig.for_model(**{**encoder, **chosen}), chosen.keys() - encoder
    else:
        configuration, unknown = transformers.AutoConfig.from_pretrained(
            name, return_unused_kwargs=True, trust_remote_code=False, **chosen
        )
    if unknown:
        raise UserError(f"backbone.options: the configuration of {name} has no {', '.join(unknown)}")
    # A configuration may say that it has no decoder; the network that AutoModel builds has one all the same.
    if configuration.is_encoder_decoder or configuration.model_type in _encoder_decoders():
        raise UserError(f"{name} is an encoder with a decoder ({configuration.model_type}): name one that is either")
    if not hasattr(configuration, "hidden_size") or not hasattr(configuration, "vocab_size"):
        raise UserError(f"{name} ({configuration.model_type}) does not read texts: name a language model")
    return configuration


def _encoder_of_export(name: str) -> dict[str, Any] | None:
    """Settings of the encoder in a folder that `thaw.export format=huggingface` wrote with code; None for others."""
    file = Path(name, "config.json")
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content["encoder"] if content.get("model_type") == "pooled_classifier" else None


def _require_own_kernels(configuration: Any, options: Mapping[str, Any]) -> None:
    """Raise UserError if a network's configuration names kernels that the library would download, and run.

    `options`: what the user typed; she may name any.
    """
    parts = [configuration, *(getattr(configuration, name, None) for name in configuration.sub_configs)]
    for part in parts:
        for key in ("attn_implementation", "experts_implementation"):
            kernels = getattr(part, f"_{key}", None)
            if kernels not in (*KERNELS, options.get(key)):
                raise UserError(
                    f"its configuration asks for {key}={kernels}, which may be code from a hub: it is one of "
                    f"{', '.join(filter(None, KERNELS))}. To run it all the same, type "
                    f"backbone.options={{{key}: {kernels}}}"
                )


def _encoder_decoders() -> Collection[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    return MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.keys()


def _token_spec(transformers: Any, name: str, configuration: Any) -> TokenSpec:
    tokenizer = _tokenizer(transformers, name)
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of {name} ({type(tokenizer).__name__}) is Python code without a tokenizer.json, so exports "
            f"could not include it: name a network that has a tokenizer.json"
        )
    if len(tokenizer) > configuration.vocab_size:
        raise UserError(
            f"the tokenizer of {name} knows {len(tokenizer)} tokens, its network {configuration.vocab_size}: they "
            f"do not belong together"
        )
    if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
        raise UserError(f"{name} has no tokenizer: a folder holds tokenizer.json beside the weights")
    own = [getattr(configuration, key, None) for key in ("pad_token_id", "eos_token_id")]  # the second may be a list
    candidates = (own[0], tokenizer.pad_token_id, tokenizer.eos_token_id, own[1], 0)
    pad_id = next(i for i in candidates if isinstance(i, int) and 0 <= i < configuration.vocab_size)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # data.max_length_tokens decides
    backend.no_padding()
    return TokenSpec(backend.to_str(), int(pad_id), _length(tokenizer.model_max_length))


def _tokenizer(transformers: Any, name: str) -> Any:
    """The tokenizer. Where there is a tokenizer.json, it is that one, whatever else the folder says.

    AutoTokenizer would take only the words from it and the rest from the kind of network, such as BERT's lower case.
    """
    try:
        transformers.utils.cached_file(name, "tokenizer.json")
    except OSError:  # there is none
        return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    return transformers.PreTrainedTokenizerFast.from_pretrained(name, trust_remote_code=False)


def _network(transformers: Any, name: str, configuration: Any, pretrained: bool) -> Any:
    if not pretrained:
        return transformers.AutoModel.from_config(configuration, trust_remote_code=False, dtype="float32")
    network, report = transformers.AutoModel.from_pretrained(
        name,
        config=configuration,
        use_safetensors=True,
        trust_remote_code=False,
        dtype="float32",
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported, and refused here
        key_mapping=None if _encoder_of_export(name) is None else {"^backbone.": ""},
    )
    if differing := sorted(str(key) for key, *_ in report["mismatched_keys"]):
        raise UserError(
            f"the weights of {name} have other shapes than its configuration says: {', '.join(differing[:8])} ..."
        )
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise UserError(
            f"the weights of {name} leave {len(missing)} tensors of its network unfilled: {', '.join(missing[:8])} ..."
        )
    log.info(
        "%s: %d tensors in the network, %d surplus", name, len(network.state_dict()), len(report["unexpected_keys"])
    )
    return network


def _token_types(network: Any) -> int:
    """Number of token types that the network has an embedding for; 0 if it takes none.

    GPT-2 and XLM, which say no number, would take the types for words; RoBERTa says that it knows one.
    """
    number = getattr(network.config, "type_vocab_size", None) or 0
    takes = "token_type_ids" in inspect.signature(network.forward).parameters
    return int(number) if takes and number > 1 else 0


def _longest_text(network: Any) -> int:
    """Longest text, in tokens, that the table of positions allows."""
    max_positions = _length(getattr(network.config, "max_position_embeddings", None))
    tables = [part for path, part in network.named_modules() if path.endswith("position_embeddings")]
    padding = next((part.padding_idx for part in tables if getattr(part, "padding_idx", None) is not None), None)
    # RoBERTa counts from behind the padding's index.
    return max_positions if padding is None else max_positions - padding - 1


def _length(tokens: Any) -> int:
    """A length in a configuration; absent, or negative as in XLNet, it means that there is no limit."""
    return min(int(tokens), NO_LIMIT) if isinstance(tokens, int | float) and tokens > 0 else NO_LIMIT


def _recipe(width: int, pooling: str, has_pooler: bool) -> RebuildRecipe:
    build = [
        "configuration = transformers.AutoConfig.from_pretrained({folder!r}, trust_remote_code=False)",
        "network = transformers.AutoModel.from_config(configuration, trust_remote_code=False)",
        *(["network.pooler = None"] if has_pooler else []),
        f"network.head = torch.nn.Linear({width}, {{num_classes}})",
    ]
    return RebuildRecipe(["torch", "transformers"], build, "head", LOGITS[pooling])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's own reports on loading; thaw reports what became of the weights itself."""
    from transformers.utils import logging

    own_verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(own_verbosity)
        logging.enable_progress_bar()


@contextmanager
def _user_errors(name: str) -> Iterator[None]:
    """Turn whatever the library raises on a missing or broken network into a UserError that says what to type."""
    try:
        yield
    except OSError as error:
        if Path(name).is_dir():
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{name}: {reason} Only safetensors are read: a folder holds config.json, tokenizer.json and "
                f"model.safetensors."
            ) from error
        raise UserError(
            f"{name} is no folder, and could not be downloaded from the hub ({why_not(error)}).\n"
            f"On a machine with internet type `hf download {name} --local-dir <folder>`, then backbone.name=<folder>. "
            "Without a download: backbone=gru freezing=full"
        ) from error
    except Exception as error:
        if Path(name).exists() and not (Path(name) / "config.json").is_file():
            raise UserError(f"{name} is no folder of a Hugging Face network: it has no config.json") from error
        if "trust_remote_code" in str(error) and "cannot be set" not in str(error):
            raise UserError(f"{name} comes with code of its own, which is never run: name another network") from error
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).strip().partition("\n\n")[0].split())
        raise UserError(f"{name} cannot be built ({type(error).__name__}: {reason})") from error
