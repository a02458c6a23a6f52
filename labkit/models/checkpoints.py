"""A folder in transformers' format, opened: checked first, then read, then checked again.

The folder may be broken, and its author may be unknown. Three steps, none of which runs code that
the folder brings along:

1. the configuration (`configuration`) and the headers of the weight files (`weight_files`)
   are read and compared, before anything large is built;
2. transformers opens the folder; whatever it or another library raises becomes one named
   error with one line, its cause after it;
3. nothing was left over, nothing was made up, and the tokenizer knows some text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import cached_file
from transformers.utils import logging as hf_logging

from labkit.errors import ForeignCode, LabkitError, MalformedModel, one_line
from labkit.models.configuration import read_configuration
from labkit.models.weight_files import (
    FLOATS,
    INDEX,
    WEIGHTS,
    Stored,
    read_headers,
    read_index,
    require_blocks,
    require_match,
)

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "generation_config.json",
)
"""What a hub may hold beside configuration and weights; whichever of it is there is fetched."""


def open_checkpoint(
    folder: str | Path, *, dtype: torch.dtype, device: str = "cpu"
) -> tuple[PreTrainedModel, Tokenizer]:
    """Model and tokenizer of a folder.

    Args:
        folder: Configuration, weights as safetensors, and tokenizer, as `save_pretrained`
            writes them.
        dtype: Number format of the weights in memory.
        device: A torch device, or "auto" to spread a large model over what there is.

    Raises:
        ForeignCode: If it opens only by running code that it brings along.
        MalformedModel: If anything else is wrong with it; one line says what.
    """
    folder = Path(folder)
    with named(folder):
        config = read_configuration(folder)
        held = read_headers(folder)
        require_blocks(folder, config, held)
        require_match(folder, _skeleton(config), held)
        hf, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map=device,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told of below, in one line
            use_safetensors=True,
            trust_remote_code=False,
        )
        _require_complete(folder, info, held)
        return hf, open_tokenizer(folder)


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder.

    Raises:
        ForeignCode: If it opens only by running code that the folder brings along.
        MalformedModel: If there is none, or it knows no text.
    """
    with named(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        special = set(tokenizer.all_special_ids)
        if not any(index not in special for index in tokenizer.get_vocab().values()):
            raise MalformedModel(f"{folder}: its tokenizer is empty: it knows no piece of text")
        tokenizer("a")
        return tokenizer


@contextmanager
def named(folder: Path) -> Iterator[None]:
    """Turn whatever another library raises about a folder into one named error of one line.

    Its own notes and bars are held back meanwhile: what matters in them is in the error.

    Raises:
        ForeignCode, MalformedModel: In the place of anything but an error of the lab.
    """
    bars, verbosity = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()  # loading takes a second or two, a bar only flickers
    hf_logging.set_verbosity_error()
    try:
        yield
    except LabkitError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ForeignCode(
                f"{folder} opens only by running Python code that it brings along, which labkit "
                "never does, since such code could do anything on this machine. Look for a "
                "version of the model, tokenizer included, that transformers opens by itself"
            ) from error
        raise MalformedModel(
            f"{folder} holds no model that transformers can open: {one_line(error)}"
        ) from error
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def _skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """The model as configured, without numbers: names and shapes."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _require_complete(folder: Path, info: dict[str, Any], held: dict[str, Stored]) -> None:
    """Every weight of the model came out of the files, and all that they hold went in.

    Raises:
        MalformedModel: If a weight was left at random, or one of the files left out.
    """
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise MalformedModel(
            f"{folder} lacks {len(names)} weights, such as {one_line(', '.join(names[:3]), 160)}"
        )
    for name, stored, wanted in sorted(info["mismatched_keys"]):
        raise MalformedModel(
            f"{folder}: {name} has the shape {list(stored)} in the files and {list(wanted)} by "
            "the configuration"
        )
    left = sorted(name for name in info["unexpected_keys"] if not _is_mask(name, held))
    if left:
        raise MalformedModel(
            f"{folder}: {len(left)} weights of its files have no place in the model as configured, "
            f"such as {one_line(', '.join(left[:3]), 160)}: they would be ignored silently; check "
            "config.json, or save the model again without them"
        )
    for problem in info["error_msgs"]:
        raise MalformedModel(f"{folder}: {one_line(problem)}")


def _is_mask(name: str, held: dict[str, Stored]) -> bool:
    """Whether it is a constant that older versions wrote beside the weights."""
    integral = name in held and held[name].dtype not in FLOATS
    return integral or name.endswith((".masked_bias", ".inv_freq"))


def hub_folder(repository: str) -> Path:
    """A hub's repository, brought to the hub's own cache: configuration, weights, tokenizer.

    Args:
        repository: `org/name`.

    Raises:
        OSError: What transformers raises if it cannot be reached, or is not there.
    """
    folder = Path(cached_file(repository, "config.json")).parent
    read_configuration(folder)  # before gigabytes are fetched for it
    for name in (WEIGHTS, INDEX):
        if cached_file(repository, name, _raise_exceptions_for_missing_entries=False):
            break
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        for file in read_index(folder).values():
            cached_file(repository, file)
    for name in TOKENIZER_FILES:
        cached_file(repository, name, _raise_exceptions_for_missing_entries=False)
    return folder
