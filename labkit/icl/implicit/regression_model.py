"""A transformer that reads pairs (x, y) and predicts the next y: architecture and files.

    x_1, y_1, x_2, y_2, ..., x_n      one token each, two linear maps into the residual stream
    -> blocks of a Llama              causal, so one pass predicts after every number of pairs
    -> one linear map at each x       the prediction of its y

Inputs are vectors and not words, so there is no tokenizer and no vocabulary; the blocks are those
of `transformers`. Positions are rotary, so a prompt may be longer than those of training.

References:
    Garg et al. (2022), What Can Transformers Learn In-Context?, section 2.
"""

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from labkit.errors import InputError, MalformedRecord, MissingFile
from labkit.icl.implicit.regression_prompts import N_DIMENSIONS
from labkit.stats import generator

WEIGHTS, RECORD = "model.safetensors", "training.json"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of the model.

    Attributes:
        d: Dimensions of an input.
        d_model: Width of the residual stream.
        d_mlp: Number of FFN memories of a block.
        n_layers: Blocks.
        n_heads: Attention heads of a block; they divide `d_model`.
    """

    d: int = N_DIMENSIONS
    d_model: int = 64
    d_mlp: int = 256
    n_layers: int = 6
    n_heads: int = 4

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        if min(self.d, self.d_model, self.d_mlp, self.n_layers, self.n_heads) < 1:
            raise InputError(f"every size must be at least 1: {self}")
        if self.d_model % (2 * self.n_heads):
            raise InputError(f"{self.n_heads} heads of even width do not divide {self.d_model}")


class ContextRegressor(nn.Module):
    """Predicts y at every x from the pairs before it; nothing of it changes from prompt to prompt.

    Attributes:
        shape: Its size.
        record: How it was trained; empty for an untrained one.
    """

    def __init__(self, shape: Shape | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape = shape or Shape()
        self.record: dict[str, Any] = {}
        config = LlamaConfig(
            vocab_size=1,  # unused: inputs are vectors
            hidden_size=shape.d_model,
            intermediate_size=shape.d_mlp,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            num_key_value_heads=shape.n_heads,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        with torch.random.fork_rng(devices=[]):  # torch's global random state stays
            torch.manual_seed(generator(seed, "regression weights").initial_seed())
            self.read_x = nn.Linear(shape.d, shape.d_model)
            self.read_y = nn.Linear(1, shape.d_model)
            self.blocks = LlamaModel(config)
            self.say = nn.Linear(shape.d_model, 1)
        self.blocks.embed_tokens = None

    def forward(
        self, x: Float[Tensor, "prompt pos d"], y: Float[Tensor, "prompt pos"]
    ) -> Float[Tensor, "prompt pos"]:
        """Predictions of y at every position; that position's own y and later ones are not seen."""
        return self.say(self._states(x, y)[-1][:, ::2]).squeeze(-1)

    @torch.no_grad()
    def states(
        self, x: Float[Tensor, "prompt pos d"], y: Float[Tensor, "prompt pos"]
    ) -> Float[Tensor, "depth prompt token d_model"]:
        """The residual stream at x_1, y_1, ..., x_n by depth; the last one is normed."""
        return torch.stack(self._states(x, y))

    @torch.inference_mode()
    def predict(
        self,
        x: Float[Tensor, "prompt pos d"],
        y: Float[Tensor, "prompt pos"],
        *,
        batch: int = 256,
    ) -> Float[Tensor, "prompt pos"]:
        """`forward` without gradients, some prompts at a time."""
        parts = zip(x.split(batch), y.split(batch), strict=True)
        return torch.cat([self(some_x, some_y) for some_x, some_y in parts])

    def _states(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        if x.shape[-1] != self.shape.d:
            raise InputError(
                f"inputs have {x.shape[-1]} dimensions; the model reads {self.shape.d}"
            )
        pairs = torch.stack([self.read_x(x), self.read_y(y[..., None])])
        tokens = rearrange(pairs, "which prompt pos d_model -> prompt (pos which) d_model")
        return self.blocks(
            inputs_embeds=tokens[:, :-1],  # nobody is asked about what follows the last y
            output_hidden_states=True,
        ).hidden_states

    def save(self, folder: Path) -> None:
        """Write weights and record into a folder that is there."""
        weights = {name: p.detach().contiguous() for name, p in self.named_parameters()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        content = {"shape": asdict(self.shape), **self.record}
        (folder / RECORD).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "ContextRegressor":
        """A model that `save` wrote, ready to predict.

        Raises:
            MissingFile: If the folder lacks the weights or the record.
            MalformedRecord: If they do not fit together.
        """
        folder = Path(folder)
        try:
            record = json.loads((folder / RECORD).read_text())
            weights = load_file(folder / WEIGHTS)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFile(f"{folder} holds no regression model: {error}") from error
        try:
            model = cls(Shape(**record.pop("shape")))
            model.load_state_dict(weights)
        except (KeyError, TypeError, RuntimeError) as error:
            raise MalformedRecord(f"{folder} holds no regression model: {error}") from error
        model.record = record
        return model.eval().requires_grad_(False)


def shipped() -> ContextRegressor:
    """The model that ships with the package; `labkit.icl.implicit.regression_train` made it."""
    return ContextRegressor.load(str(resources.files("labkit.data").joinpath("icl", "regression")))
