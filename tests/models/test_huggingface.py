"""Hugging Face networks: weights, tokenizers and pooling; what must hold for every network is in test_libraries.py."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from tests.language import NETWORKS, pretrained
from thaw.caching.cut import cut
from thaw.errors import UserError
from thaw.finetuning.freezing import freeze_all_but
from thaw.models.backbone import Backbone
from thaw.models.heads import linear
from thaw.models.huggingface import NO_LIMIT, huggingface
from thaw.models.network import Network
from thaw.types import TokenSpec

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

LENGTHS = (9, 4, 1)


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Three texts of different length, padded on the right."""
    ids = torch.randint(4, 32, (len(LENGTHS), 16), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(16) < torch.tensor(LENGTHS)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def network_of(backbone: Backbone) -> Network:
    torch.manual_seed(1)
    return Network(backbone, linear(backbone.num_features, 3, dropout=0.0))


def library_features(folder: Path, pooling: str, inputs: dict[str, Tensor]) -> Tensor:
    """Pooled by a plain loop over the states that AutoModel gives."""
    states = transformers.AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
    pooled = {
        "cls": lambda text, length: text[0],
        "last": lambda text, length: text[length - 1],
        "mean": lambda text, length: text[:length].sum(0) / length,
    }[pooling]
    return torch.stack([pooled(text, length) for text, length in zip(states, LENGTHS, strict=True)])


def test_dropout_is_on_in_training_and_off_when_frozen(tmp_path: Path) -> None:
    network = network_of(huggingface(str(pretrained(tmp_path, "bert"))))

    def twice() -> bool:
        return torch.equal(network(batch()), network(batch()))

    for stage in ("embeddings", "layer0"):
        network.eval()
        assert twice()
        freeze_all_but(network, frozenset(network.stage_addresses()[stage]))
        assert not twice(), stage


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_pooling_heeds_the_valid_tokens_only(pooling: str, tmp_path: Path) -> None:
    folder = pretrained(tmp_path)
    network = network_of(huggingface(str(folder), pooling=pooling)).eval()
    inputs = batch()
    features = network.features(inputs)
    assert torch.allclose(features, library_features(folder, pooling, inputs), atol=1e-6)
    inputs["input_ids"] = torch.where(inputs["attention_mask"] == 1, inputs["input_ids"], 7)
    assert torch.allclose(network.features(inputs), features, atol=1e-6)
    with pytest.raises(UserError, match=r"backbone.pooling is cls, mean, last, not 'max'"):
        huggingface(str(folder), pooling="max")


def test_lists_of_equal_length_side_by_side_make_one_stage_a_layer(tmp_path: Path) -> None:
    backbone = huggingface(str(pretrained(tmp_path, "xlm")), pooling="cls")
    assert list(backbone.stages) == ["embeddings", "layer0", "layer1"]
    first = {name.split(".")[0] for name in backbone.stages["layer0"]}
    assert first == {"attentions", "layer_norm1", "ffns", "layer_norm2"}
    features = network_of(backbone).eval().features(batch())
    assert torch.equal(features, library_features(tmp_path, "cls", batch()))


def test_a_final_norm_belongs_to_the_last_layer(tmp_path: Path) -> None:
    backbone = huggingface(str(pretrained(tmp_path, "llama")))
    assert "norm.weight" in backbone.stages["layer1"]
    assert list(backbone.stages["embeddings"]) == ["embed_tokens.weight"]


def test_a_decoder_s_first_token_is_no_feature(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in a llama the first token sees none of the others: .*pooling=last or mean"):
        huggingface(str(pretrained(tmp_path, "llama")), pooling="cls")


def test_a_layer_that_the_library_drops_is_dropped(tmp_path: Path) -> None:
    network = network_of(huggingface(str(pretrained(tmp_path, "opt")), options={"layerdrop": 1.0}))
    called: list[torch.nn.Module] = []
    for layer in network.backbone.decoder.layers:
        layer.register_forward_pre_hook(lambda module, _: called.append(module))
    network.train()(batch())
    assert called == []
    network.eval()(batch())
    assert len(called) == 2


def test_copies_have_their_own_parameters(tmp_path: Path) -> None:
    backbone = huggingface(str(pretrained(tmp_path, "deberta")))
    network = network_of(backbone).eval()
    with torch.no_grad():
        halves = cut(network, backbone.input_spec, 1)
        assert halves is not None
        network.entries[1] = halves.suffix
        tokens, expected = halves.prefix(batch()), network(batch())
        averaged = copy.deepcopy(network)  # as EMA does
        for parameter in network.parameters():
            parameter.add_(0.1)
        assert torch.equal(averaged(tokens, start=1), expected)
        assert not torch.allclose(network(tokens, start=1), expected)


def test_how_weights_come_in(tmp_path: Path) -> None:
    folder = str(pretrained(tmp_path / "bert"))
    default = huggingface(folder).network.encoder.layer[1].state_dict()
    random = huggingface(folder, weights="none").network.encoder.layer[1].state_dict()
    assert not all(torch.equal(default[name], random[name]) for name in default)
    # A network with a head for something else, as most files have it.
    configuration = transformers.AutoConfig.from_pretrained(folder)
    masked = transformers.BertForMaskedLM(configuration)
    masked.save_pretrained(tmp_path / "masked")
    from_file = huggingface(folder, weights=tmp_path / "masked/model.safetensors").network.state_dict()
    for name, tensor in masked.bert.state_dict().items():
        assert torch.equal(from_file[name], tensor)
    other = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folder, num_hidden_layers=1))
    other.save_pretrained(tmp_path / "short")
    with pytest.raises(UserError, match="is of another network"):
        huggingface(folder, weights=tmp_path / "short/model.safetensors")
    (tmp_path / "bert/model.safetensors").write_bytes((tmp_path / "short/model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"leave 16 tensors of its network unfilled: encoder.layer.1"):
        huggingface(folder)


def test_it_is_built_again_from_what_a_run_records(tmp_path: Path) -> None:
    first = huggingface(str(pretrained(tmp_path)), options={"hidden_dropout_prob": 0.4})
    settings = json.loads(json.dumps(first.settings))
    assert isinstance(first.input_spec, TokenSpec)
    again = huggingface("gone", weights=None, settings=settings, input_spec=first.input_spec)
    assert again.input_spec == first.input_spec
    one, two = network_of(first).eval(), network_of(again).eval()
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(batch()), two(batch()))
    dropouts = [part.p for part in two.modules() if isinstance(part, nn.Dropout)]
    assert 0.4 in dropouts


def test_what_is_recorded_is_float32_and_says_not_where_it_came_from(tmp_path: Path) -> None:
    folder = pretrained(tmp_path, "llama", dtype="bfloat16")
    settings = huggingface(str(folder)).settings
    assert settings is not None
    assert settings["dtype"] == "float32"
    assert str(tmp_path) not in json.dumps(dict(settings))
    assert huggingface(str(folder)).network.layers[0].mlp.up_proj.weight.dtype == torch.float32


def test_the_longest_text_is_what_the_network_has_positions_for(tmp_path: Path) -> None:
    assert huggingface(str(pretrained(tmp_path / "bert"))).input_spec.max_length_tokens == 40  # type: ignore[union-attr]
    # RoBERTa's positions begin behind its padding index.
    folder = pretrained(tmp_path / "roberta", "roberta", pad_token_id=1, max_position_embeddings=20)
    spec = huggingface(str(folder)).input_spec
    assert isinstance(spec, TokenSpec)
    assert (spec.max_length_tokens, spec.pad_id) == (18, 1)


@pytest.mark.parametrize(
    "said", [None, {"model_max_length": 9}, {"tokenizer_class": "BertTokenizer", "do_lower_case": True}]
)
def test_a_tokenizer_json_is_the_tokenizer_whatever_else_is_said(tmp_path: Path, said: dict[str, Any] | None) -> None:
    folder = pretrained(tmp_path)
    (folder / "tokenizer_config.json").unlink()
    if said is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
    text = "정말 재미있다 great Great"
    expected = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    assert expected.count(1) == 1, "one unknown word"
    spec = huggingface(str(folder)).input_spec
    assert isinstance(spec, TokenSpec)
    assert tokenizers.Tokenizer.from_str(spec.tokenizer).encode(text).ids == expected
    assert (spec.max_length_tokens, spec.pad_id) == (9 if said and "model_max_length" in said else 40, 0)


@pytest.mark.parametrize("length", [-1, 0, None])
def test_a_length_that_is_absent_or_below_one_is_no_limit(tmp_path: Path, length: int | None) -> None:
    folder = pretrained(tmp_path / "llama", "llama")
    say(folder / "config.json", max_position_embeddings=length or -1)
    assert huggingface(str(folder)).input_spec.max_length_tokens == 40  # type: ignore[union-attr]
    say(folder / "tokenizer_config.json", model_max_length=length)
    assert huggingface(str(folder)).input_spec.max_length_tokens == NO_LIMIT  # type: ignore[union-attr]


def test_xlnet_s_positions_have_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"vocab_size": 64, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24, "pad_token_id": 0}
    monkeypatch.setitem(NETWORKS, "xlnet", sizes)
    backbone = huggingface(str(pretrained(tmp_path, "xlnet")))
    assert backbone.input_spec.max_length_tokens == 40  # type: ignore[union-attr]
    assert network_of(backbone)(batch()).shape == (3, 3)


def say(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_code_of_a_hub_is_never_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail("asks whether to run code"))
    spec = huggingface(str(pretrained(tmp_path))).input_spec
    remote = {"auto_map": {"AutoModel": "evil/hub--modeling.Evil"}}
    with pytest.raises(UserError, match="comes with code of its own, which is never run"):
        huggingface("x", None, settings={"model_type": "clap_text_model", **remote}, input_spec=spec)
    settings = {**(huggingface(str(tmp_path)).settings or {}), **remote}
    assert huggingface("x", None, settings=settings, input_spec=spec).num_features == 16
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        with pytest.raises(UserError, match=f"asks for {key.removeprefix('_')}=evil/kernel, which may be code"):
            huggingface("x", None, settings={**settings, key: "evil/kernel"}, input_spec=spec)
        say(tmp_path / "config.json", **{key: "evil/kernel"})
        with pytest.raises(UserError, match=r"asks for .*evil/kernel, which may be code from a hub: .*eager"):
            huggingface(str(tmp_path))
        (tmp_path / "config.json").write_text(json.dumps(settings))


def test_what_is_no_such_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match=r"the configuration of .* has no dropuot"):
        huggingface(str(folder), options={"dropuot": 0.1})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"is no folder of a Hugging Face network: it has no config.json"):
        huggingface(str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"is no folder, and could not be downloaded from the hub .*\n.*hf download"):
        huggingface(str(tmp_path / "absent"))
    t5 = transformers.T5Config(vocab_size=64, d_model=16, num_layers=1, num_heads=2)
    t5.save_pretrained(tmp_path / "t5")
    with pytest.raises(UserError, match=r"is an encoder with a decoder .t5.: name one that is either"):
        huggingface(str(tmp_path / "t5"))
    say(tmp_path / "t5/config.json", is_encoder_decoder=False)  # AutoModel builds a decoder all the same
    with pytest.raises(UserError, match=r"is an encoder with a decoder .t5.: name one that is either"):
        huggingface(str(tmp_path / "t5"))
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match="does not read texts"):
        huggingface(str(tmp_path / "vit"))
    for wrong, said in (
        ("{hidden_act: foo}", "cannot be built"),
        ("{hidden_size: null}", r"cannot be built .*'hidden_size' expected int, got NoneType"),
        ("{max_position_embeddings: 30}", "other shapes than its configuration says: embeddings.position_embeddings"),
        ("{trust_remote_code: true}", "backbone.options: trust_remote_code cannot be set"),
    ):
        options = OmegaConf.to_container(OmegaConf.create(wrong))
        with pytest.raises(UserError, match=said) as refusal:
            huggingface(str(folder), options=options)  # type: ignore[arg-type]
        assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match=r"backbone.options=abc is no mapping"):
        huggingface(str(folder), options="abc")  # type: ignore[arg-type]
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(UserError, match=r"cannot be built .SafetensorError"):
        huggingface(str(folder))
    for file in folder.glob("tokenizer*"):
        file.rename(tmp_path / file.name)
    with pytest.raises(UserError, match=r"has no tokenizer: a folder holds tokenizer.json"):
        huggingface(str(folder))
    for file in tmp_path.glob("tokenizer*"):
        file.rename(folder / file.name)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="Only safetensors are read"):
        huggingface(str(folder))
    transformers.BertConfig(**{**NETWORKS["bert"], "vocab_size": 8}).save_pretrained(folder)
    with pytest.raises(UserError, match="they do not belong together"):
        huggingface(str(folder))
