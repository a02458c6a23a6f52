"""How the pocket model is made: a small Llama-shaped model learns the pocket world.

`train` draws the world, builds the tokenizer, and trains on the world's documents as a
language model does, next token after next token. Two choices make it a matter of minutes.
The matrices inside the blocks are trained with Muon, which needed fewer steps here than
AdamW (the embedding and the norms keep AdamW). And objects, the one token of a sentence
that follows from the rest, weigh more in the loss than the others, most of which are a free
choice of whom to talk about. The result is a folder in transformers' format with
checkpoints along the way, so that one can watch the facts being learned.

A third choice decides where the facts are kept. Left to itself a model this small copies
both words of a name to the end of the prompt and looks the fact up there; rewriting the
subject's last token then changes one prompt and no paraphrase. In the first part of
training attention is therefore restricted (`labkit.pocket.attention`), so that names are recognised
at their last word and carry their facts from there, as in larger models; then it is set
free. Nothing of this is left in the model: it is a plain Llama. Recall is
measured on that plain Llama, and so lags behind the loss until the attention is free.

The same seed gives the same weights, bit for bit, on the same machine with the same number
of threads. Elsewhere sums are taken in another order, and over a training run that grows
into other weights for the same world.

References:
    Jordan et al. (2024), Muon: an optimizer for hidden layers in neural networks.
    Zucchet et al. (2025), How do language models learn facts? Dynamics, curricula and
    hallucinations: the plateau before the names are told apart shows here too.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from labkit.files import atomic_folder, require_free
from labkit.pocket.attention import local_attention
from labkit.pocket.recall import recalled
from labkit.pocket.recipe import Recipe, Shape
from labkit.pocket.tokenizer import build_tokenizer
from labkit.pocket.world import PocketWorld, build_world, documents
from labkit.progress import Progress, listener
from labkit.stats import generator
from labkit.training import Optimiser, torch_threads

IGNORED = -100  # the label that cross_entropy leaves out


def train(
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    shape: Shape | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a pocket model and write it, with its checkpoints, to a new folder.

    The folder holds the model in transformers' format (16-bit floats; load it in fp32),
    `training.json` (recipe, shape, and loss and recall at every checkpoint and the end) and
    `checkpoints/step-000043/...`, each a model folder of its own.

    Args:
        out: Folder to write; it may exist if it is empty.
        recipe: How to train; by default the recipe of the weights that ship.
        shape: What to train; by default the shape of the weights that ship.
        progress: Called after every step, with its number and loss (nats) in words.

    Returns:
        The folder.

    Raises:
        OutputError: If `out` is not empty or cannot be written.
        NonFiniteLoss: If the loss stops being a number.
    """
    out, recipe, shape = Path(out), recipe or Recipe(), shape or Shape()
    require_free(out)
    world = build_world(recipe.seed)
    tokenizer = build_tokenizer(world.sentences())
    tokenizer.model_max_length = shape.n_positions
    with atomic_folder(out) as folder, torch_threads(recipe.threads):
        model = initial_model(tokenizer, shape, seed=recipe.seed)
        history = []
        for step, loss in _steps(model, tokenizer, world, recipe):
            listener(progress)(
                f"step {step} of {recipe.steps}, loss {loss:.3f}", step / recipe.steps
            )
            if step in (*recipe.checkpoint_steps(), recipe.steps):
                final = step == recipe.steps
                place = folder if final else folder / "checkpoints" / f"step-{step:06d}"
                kept = _save(model, tokenizer, place)
                history.append({"step": step, "loss": loss, **_recall(kept, tokenizer, world)})
        record = {"recipe": asdict(recipe), "shape": asdict(shape), "history": history}
        (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return out


def initial_model(
    tokenizer: PreTrainedTokenizerBase, shape: Shape, *, seed: int
) -> LlamaForCausalLM:
    """An untrained model; torch's global random state is neither used nor moved."""
    config = LlamaConfig(
        labkit_model="pocket",  # labkit.models.fetch.CAME_FROM
        vocab_size=len(tokenizer),
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=shape.n_positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["LlamaForCausalLM"],
        dtype="float16",  # of the file; see `_save`
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.02, generator=generator(seed, "pocket weights", name))
    return model


def _steps(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, world: PocketWorld, recipe: Recipe
) -> Iterator[tuple[int, float]]:
    """Train in place, one optimiser step at a time; yield its number (from 1) and loss."""
    optimiser = Optimiser(
        model,
        model.model.layers,
        matrix_rate=recipe.learning_rate,
        other_rate=recipe.embedding_rate,
        schedule=recipe.schedule,
        weight_decay=recipe.weight_decay,
    )
    full_stop = tokenizer.convert_tokens_to_ids(".")
    names = {fact.subject.split()[0] for fact in world.facts if " " in fact.subject}
    openers = torch.tensor(tokenizer.convert_tokens_to_ids(sorted(names)))
    batches = _batches(world, tokenizer, recipe)
    for step, ids in enumerate(islice(batches, recipe.steps), start=1):
        with ExitStack() as stack:
            if step <= recipe.local_share * recipe.steps:
                stack.enter_context(
                    local_attention(model, ids, n_layers=recipe.local_layers, openers=openers)
                )
            loss = _loss(model, ids, full_stop, recipe.object_weight)
        optimiser.step(loss, step)
        yield step, loss.item()


def _loss(
    model: LlamaForCausalLM,
    ids: Int[Tensor, "document pos"],
    full_stop: int,
    object_weight: float,
) -> Float[Tensor, ""]:
    """Weighted mean of the next-token losses; the object is what a full stop follows."""
    logits = model(input_ids=ids.clamp(min=0)).logits
    following = ids[:, 1:]
    losses = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), following.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(following)
    weights = (following != IGNORED).float()
    weights[:, :-1][following[:, 1:] == full_stop] = object_weight
    return (losses * weights).sum() / weights.sum()


def _batches(
    world: PocketWorld, tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> Iterator[Int[Tensor, "document pos"]]:
    """Documents without end: BOS, sentences, EOS, then `IGNORED` up to the longest."""
    for epoch in count():
        texts = documents(world, seed=recipe.seed, epoch=epoch)
        rows = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts).input_ids]
        rows.sort(key=len)  # batches of like lengths have little padding
        groups = [rows[i : i + recipe.batch] for i in range(0, len(rows), recipe.batch)]
        order = torch.randperm(
            len(groups), generator=generator(recipe.seed, "pocket batches", epoch)
        )
        for index in order.tolist():
            group = groups[index]
            ids = torch.full((len(group), len(group[-1])), IGNORED)
            for row, tokens in enumerate(group):
                ids[row, : len(tokens)] = torch.tensor(tokens)
            yield ids


def _save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> LlamaForCausalLM:
    """Write a model folder in 16-bit floats; return what a reader will load, in fp32."""
    folder.mkdir(parents=True, exist_ok=True)
    # named_parameters gives a tied matrix once, under the name that transformers reads.
    weights = {name: p.detach().half().contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):  # a fresh model: no hooks, as a reader will have it
        kept = LlamaForCausalLM(model.config).float().eval()
    kept.load_state_dict({name: p.float() for name, p in weights.items()}, strict=False)
    return kept


def _recall(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, world: PocketWorld
) -> dict[str, float]:
    """Shares of the training and of the held-out pairs that a model completes."""
    return {
        "recall_training": recalled(model, tokenizer, world.training).float().mean().item(),
        "recall_held_out": recalled(model, tokenizer, world.held_out).float().mean().item(),
    }
