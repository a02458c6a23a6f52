"""The configuration of a model from elsewhere, checked before anything is built from it.

`config.json` is read here as plain JSON first: what is missing, of the wrong kind or out of
range has one line that names it, and nothing that it asks for is run. Such a file can name Python
code (`auto_map`), native code (`attn_implementation` as a hub's kernels) and libraries of
quantisation; the lab runs none of them.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from transformers import AutoConfig, PreTrainedConfig
from transformers.activations import ACT2CLS
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from labkit.errors import ForeignCode, MalformedModel, one_line
from labkit.models.formats import DTYPES

REQUIRED = {
    "number of blocks": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "width": ("hidden_size", "n_embd", "n_embed", "d_model", "dim"),
    "number of heads": (
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "attention_heads",
    ),
    "size of the vocabulary": ("vocab_size",),
}
"""What a configuration must say, each by one of the names that the families give it."""

OPTIONAL = (
    "num_key_value_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "n_inner",
    "ffn_dim",
    "ffn_hidden_size",
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "word_embed_proj_dim",
)
"""Further sizes: positive whole numbers wherever they stand, or null."""

ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation")
ROPES = {*ROPE_INIT_FUNCTIONS, "default", "mrope", "su"}
ATTENTION = ("eager", "sdpa")
LARGEST = 2**31 - 1


def read_configuration(folder: Path) -> PreTrainedConfig:
    """The configuration in a folder, after the checks of this module.

    Raises:
        ForeignCode: If the model opens only by running code that the folder brings along.
        MalformedModel: If it is no configuration of a language model that can be opened.
    """
    raw = read_json(folder / "config.json")
    parts = [raw, *(raw[part] for part in ("text_config",) if isinstance(raw.get(part), dict))]
    _require_architecture(folder, raw)
    for part in parts:
        _require_plain_numbers(folder, part)
        _require_sizes(folder, part)
        _require_known_parts(folder, part)
    for what, names in REQUIRED.items():
        if not any(part.get(name) is not None for part in parts for name in names):
            _refuse(folder, f"does not say the {what} ({names[0]})")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise MalformedModel(f"{folder}/config.json: {one_line(error)}") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        _refuse(folder, f"describes a {config.model_type}, which is no causal language model")
    _require_heads(folder, config.get_text_config())
    return config


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        MalformedModel: If the file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise MalformedModel(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MalformedModel(f"{path} is no JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise MalformedModel(f"{path} holds no JSON object but {one_line(json.dumps(value), 40)}")
    return value


def _no_number(constant: str) -> NoReturn:
    """JSON has no NaN and no infinity, and no part of a model is one."""
    raise ValueError(f"{constant} is no number")


def _refuse(folder: Path, why: str) -> NoReturn:
    raise MalformedModel(f"{folder}/config.json {why}")


def _require_architecture(folder: Path, raw: Mapping[str, Any]) -> None:
    """An architecture that transformers itself has, on plain weights of the folder's own."""
    model_type = raw.get("model_type")
    if not isinstance(model_type, str):
        _refuse(folder, f"names no architecture: model_type is {one_line(repr(model_type), 40)}")
    if model_type not in CONFIG_MAPPING:
        if raw.get("auto_map"):
            raise ForeignCode(
                f"{folder} opens only by running Python code that it brings along (auto_map in its "
                "config.json), which labkit never does, since such code could do anything on "
                f"this machine, and transformers itself has no architecture {model_type!r}. Look "
                "for a version of the model in an architecture that it has"
            )
        _refuse(
            folder,
            f"names the architecture {one_line(repr(model_type), 60)}, which the installed "
            "transformers does not have: update it, or check the spelling",
        )
    if raw.get("quantization_config") is not None or raw.get("compression_config") is not None:
        stored = raw.get("quantization_config") or raw.get("compression_config")
        method = stored.get("quant_method") if isinstance(stored, dict) else stored
        _refuse(
            folder,
            f"says that the weights are quantised ({one_line(method, 40)}); the lab reads and "
            "edits plain floating-point weights: use the model as it was before quantisation",
        )
    if (folder / "adapter_config.json").exists():
        raise MalformedModel(
            f"{folder} holds an adapter (adapter_config.json) beside a model, so that two models "
            "could be meant: merge the adapter, or move it away"
        )


def _require_plain_numbers(folder: Path, part: Mapping[str, Any]) -> None:
    """A number format that there is, and positive bounds where zero would divide."""
    for name in ("dtype", "torch_dtype"):
        dtype = part.get(name)
        known = isinstance(dtype, str) and dtype.removeprefix("torch.") in DTYPES
        if not (known or dtype is None or isinstance(dtype, dict)):
            _refuse(folder, f"has {name} {one_line(repr(dtype), 40)}; one of {', '.join(DTYPES)}")
    for name, value in part.items():
        if name.endswith(("_eps", "_epsilon")) or name == "rope_theta":
            _require_positive(folder, name, value)


def _require_positive(folder: Path, name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and math.isfinite(value) and value > 0):
        _refuse(folder, f"has {name} {one_line(repr(value), 40)}, which is no positive number")


def _require_sizes(folder: Path, part: Mapping[str, Any]) -> None:
    """Sizes that are positive whole numbers."""
    required = {name for names in REQUIRED.values() for name in names}
    for name in (*required, *OPTIONAL):
        value = part.get(name)
        if value is None:
            if name in part and name in required:
                _refuse(folder, f"has {name} null")
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
            _refuse(
                folder, f"has {name} {one_line(repr(value), 40)}, which is no positive whole number"
            )


def _require_known_parts(folder: Path, part: Mapping[str, Any]) -> None:
    """Activations, rotary embeddings and attention that transformers itself computes."""
    for name in ACTIVATIONS:
        value = part.get(name)
        if value is not None and (not isinstance(value, str) or value not in ACT2CLS):
            _refuse(folder, f"has an unknown activation: {name} is {one_line(repr(value), 60)}")
    for name in ("rope_scaling", "rope_parameters"):
        for rope in _ropes(folder, name, part.get(name)):
            kind = rope.get("rope_type", rope.get("type", "default"))
            if not isinstance(kind, str) or kind not in ROPES:
                _refuse(
                    folder, f"has an unknown rotary embedding: {name} is {one_line(repr(kind), 60)}"
                )
            for factor in ("factor", "rope_theta"):
                _require_positive(folder, f"{name}.{factor}", rope.get(factor))
    for name in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        value = part.get(name)
        for kernels in value.values() if isinstance(value, dict) else [value]:
            if kernels is not None and kernels not in ATTENTION:
                _refuse(
                    folder,
                    f"asks for kernels of its own ({name} {one_line(repr(kernels), 60)}), which "
                    f"are not run: {' or '.join(ATTENTION)} can be used, or nothing be said",
                )


def _ropes(folder: Path, name: str, value: Any) -> Iterator[dict[str, Any]]:
    """The descriptions of rotary embeddings: one, or one for each type of block."""
    if value is None:
        return
    if not isinstance(value, dict):
        _refuse(folder, f"has {name} {one_line(repr(value), 40)}, which is no JSON object")
    nested = [one for one in value.values() if isinstance(one, dict)]
    yield from nested or [value]


def _require_heads(folder: Path, config: PreTrainedConfig) -> None:
    """Heads that share out the width, and keys that share out the heads."""
    width, heads = config.hidden_size, config.num_attention_heads
    if not isinstance(heads, int) or not isinstance(width, int):
        return  # one number per block: nothing to compare here
    if getattr(config, "head_dim", None) is None and width % heads:
        _refuse(folder, f"shares a width of {width} among {heads} heads, which does not come out")
    groups = getattr(config, "num_key_value_heads", None)
    if isinstance(groups, int) and heads % groups:
        _refuse(folder, f"shares {groups} key-value heads among {heads} heads: no whole number")
