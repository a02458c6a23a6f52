"""Plain gradient steps on demonstrations, and running the model with replaced weights.

A demonstration is learnt as it would be asked without demonstrations: the query of its
input, and after it the label. The loss is

    L = - mean over demonstrations of  mean_j log p(label_j | query, label_<j)

and a step is W <- W - rate dL/dW, on the weights that produce keys and values only.

    learnt = key_value_weights(model)
    changed = descend(model, learnt, [[one], [other]], rate=0.01)      # two steps, one each
    with other_weights(model, changed):
        ...                                                             # the model, fine-tuned

Which weights produce keys and values is found by differentiating keys and values: where a
family keeps queries in the same matrix, their part has no gradient there and is not learnt.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from labkit.errors import SelfCheckFailed
from labkit.icl.asking.scoring import prompt_ids
from labkit.icl.tasks.items import Template
from labkit.icl.tasks.prompts import Shot, write
from labkit.models.model import LabModel
from labkit.running.beginnings import Ids
from labkit.running.execute import Execution
from labkit.running.scoring import logits_of
from labkit.stats import generator
from labkit.tokens import TokenBatch, target_ids

Weights = dict[str, Tensor]
"""Parameters by the names that Hugging Face has for them."""


@dataclass(frozen=True)
class Learnt:
    """The weights that are learnt.

    Attributes:
        parts: By name, True for every entry that is learnt.
        layers: By layer, the names that belong to it.
    """

    parts: Mapping[str, Bool[Tensor, "..."]]
    layers: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Lesson:
    """A demonstration as it is learnt: a query's ids, and its label's."""

    query: Ids
    label: Ids


def lessons(model: LabModel, template: Template, shots: Sequence[Shot]) -> list[Lesson]:
    """Demonstrations as lessons, each without the others.

    Raises:
        EmptyTarget: If a label tokenises to nothing.
        EmptyPrompt: If there is no demonstration.
    """
    texts = [write(template, (), shot.input) for shot in shots]
    return [
        Lesson(ids, tuple(target_ids(model.tokenizer, text, template.gap + shot.label)))
        for text, ids, shot in zip(texts, prompt_ids(model, texts), shots, strict=True)
    ]


@contextmanager
def other_weights(model: LabModel, changed: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace weights inside the block; the model's own tensors are restored, bit for bit.

    Nothing is written into them: each parameter points to another tensor
    for the duration of the block.

    Args:
        model: The model.
        changed: By name, the tensor that the parameter points to in the block.
    """
    parameters = {name: model.hf.get_parameter(name) for name in changed}
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = changed[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = own[name]


@contextmanager
def _asking(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Parameters that require a gradient, with gradients enabled; restored at the end."""
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter, asked in zip(parameters, before, strict=True):
            parameter.requires_grad_(asked)


def key_value_weights(model: LabModel) -> Learnt:
    """The entries of attention's parameters that produce keys and values, layer by layer.

    Raises:
        SelfCheckFailed: If a layer's keys and values depend on no parameter of its attention.
    """
    names = [
        [
            f"{model.anatomy.blocks}.{layer}.{model.anatomy.attn}.{name}"
            for name, _ in block.get_submodule(model.anatomy.attn).named_parameters()
        ]
        for layer, block in enumerate(model.blocks)
    ]
    parameters = [[model.hf.get_parameter(name) for name in own] for own in names]
    ids = torch.arange(3, device=model.device)[None] % model.d_vocab
    parts: dict[str, Tensor] = {}
    with _asking([parameter for own in parameters for parameter in own]):
        _, made = Execution(model, TokenBatch(ids, torch.ones_like(ids).bool())).freeze()
        for layer, states in enumerate(zip(made.keys, made.values, strict=True)):
            draw = generator(0, "keys and values", layer)
            read = torch.stack(
                [(s * torch.randn(s.shape, generator=draw).to(s)).sum() for s in states]
            ).sum()
            slopes = torch.autograd.grad(
                read, parameters[layer], allow_unused=True, retain_graph=True
            )
            found = {
                name: slope != 0
                for name, slope in zip(names[layer], slopes, strict=True)
                if slope is not None
            }
            if not found:
                raise SelfCheckFailed(
                    f"{model.name}: no parameter of the attention of layer {layer} produces keys "
                    "and values, so they cannot be fine-tuned"
                )
            parts |= found
    layers = tuple(tuple(name for name in own if name in parts) for own in names)
    return Learnt(parts, layers)


def descend(
    model: LabModel,
    learnt: Learnt,
    steps: Sequence[Sequence[Lesson]],
    *,
    rate: float,
    by_layer: bool = False,
) -> Weights:
    """The weights after plain gradient steps. The model is as before.

    Args:
        model: The model.
        learnt: Which weights are learnt.
        steps: The lessons of every step: one each is an epoch of SGD, all in one a full batch.
        rate: Step size.
        by_layer: Each layer, the first first, learns from a loss of its own output as the final
            norm and the unembedding read it, with the layers below it as they are by now: no layer
            receives gradients from those above (Deutch et al. 2024, layer-causal gradient
            descent).
    """
    changed = {
        name: model.hf.get_parameter(name).detach().clone(memory_format=torch.preserve_format)
        for name in learnt.parts
    }
    with other_weights(model, changed), _asking([model.hf.get_parameter(n) for n in changed]):
        for batch in steps:
            run = Execution(model, _padded(model, batch))
            if not by_layer:
                _step(model, learnt, list(changed), _loss(model, run.forward(), batch), rate)
                continue
            resid = run.embed.detach()
            for layer, names in enumerate(learnt.layers):
                out = run.forward(resid, start=layer, stop=layer + 1)
                _step(model, learnt, names, _loss(model, out, batch), rate)
                with torch.no_grad():
                    resid = run.forward(resid, start=layer, stop=layer + 1)
    return changed


def random_change(
    model: LabModel, learnt: Learnt, changed: Weights, *, seed: int, content: object = ""
) -> Weights:
    """Weights moved in random directions, each parameter as far as another change moved it."""
    moved: Weights = {}
    for name, tensor in changed.items():
        own = model.hf.get_parameter(name).detach()
        noise = torch.randn(own.shape, generator=generator(seed, "random change", content, name))
        noise = noise.to(own) * learnt.parts[name]
        moved[name] = own + noise * ((tensor - own).norm() / noise.norm())
    return moved


def _padded(model: LabModel, batch: Sequence[Lesson]) -> TokenBatch:
    """Queries with their labels, without the last token, after which nothing is predicted."""
    return model.pad([(lesson.query + lesson.label)[:-1] for lesson in batch])


def _loss(
    model: LabModel, resid: Float[Tensor, "row pos d_model"], batch: Sequence[Lesson]
) -> Float[Tensor, ""]:
    """The loss, from a stream that the final norm and the unembedding read."""
    where = [
        (row, place - len(lesson.label), token, 1 / (len(lesson.label) * len(batch)))
        for row, lesson in enumerate(batch)
        for place, token in enumerate(lesson.label)
    ]
    rows, places, tokens, shares = (list(column) for column in zip(*where, strict=True))
    logits = logits_of(model, resid[rows, places])
    said = logits.log_softmax(dim=-1)[list(range(len(tokens))), tokens]
    return -(said * said.new_tensor(shares)).sum()


def _step(model: LabModel, learnt: Learnt, names: Sequence[str], loss: Tensor, rate: float) -> None:
    """One step on some weights, written into the tensors that they are lent."""
    parameters = [model.hf.get_parameter(name) for name in names]
    slopes = torch.autograd.grad(loss, parameters)
    for name, parameter, slope in zip(names, parameters, slopes, strict=True):
        parameter.data.sub_(rate * slope * learnt.parts[name])
