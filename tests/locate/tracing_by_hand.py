"""Causal tracing as one would write it down: hooks on the plain model, one full run per cell."""

from contextlib import ExitStack

import torch

from labkit.facts.fact import Fact
from labkit.running.execute import repeat_rows
from labkit.stats import generator
from tests.reference import full_logits, output_hook, outputs_of

FACT = Fact(subject="cat", template="the {} is in", object=" of")
SAMPLES = 2


class ByHand:
    """Causal tracing with hooks on the plain model, one full run per cell."""

    def __init__(self, model, fact, *, kind, window=1, seed=0, samples=SAMPLES, noise=3.0):
        self.model, self.kind, self.window = model, kind, window
        self.batch = repeat_rows(model.tokens([fact.prompt]), samples)
        before, cat = fact.template.split("{}")[0], fact.subject
        encode = model.tokenizer
        self.start = int(model.prepend_bos) + len(
            encode(before.rstrip(), add_special_tokens=False).input_ids
        )
        width = len(encode(" " + cat, add_special_tokens=False).input_ids)
        self.start += int(encode.decode(self.batch.ids[0, self.start]) == " ")
        self.stop = (
            self.start + width - int(encode.decode(self.batch.ids[0, self.start - 1]) == " ")
        )
        draw = torch.randn(
            (samples, self.stop - self.start, model.d_model),
            generator=generator(seed, "trace", fact.prompt, fact.subject),
        )
        self.noise = draw * noise * spread(model)
        (self.answer,) = encode(fact.object, add_special_tokens=False).input_ids
        self.sites = [self.site(layer) for layer in range(model.n_layers)]
        with ExitStack() as stack:
            self.clean = [stack.enter_context(outputs_of(site)) for site in self.sites]
            self.clean_logits = full_logits(model, self.batch)

    def site(self, layer, kind=None):
        block, names = self.model.blocks[layer], self.model.anatomy
        match kind or self.kind:
            case "resid":
                return block
            case "ffn":
                return block.get_submodule(names.ffn_post or names.ffn)
            case "attn":
                return block.get_submodule(names.attn_post or names.attn)

    def corrupt(self, out):
        out = out.clone()
        out[:, self.start : self.stop] += self.noise
        return out

    def corrupted_outputs(self, kind):
        """What FFN or attention write in the corrupted run, layer by layer."""
        with ExitStack() as stack:
            embedding = self.model.hf.get_input_embeddings()
            stack.enter_context(output_hook(embedding, self.corrupt))
            seen = [
                stack.enter_context(outputs_of(self.site(layer, kind)))
                for layer in range(self.model.n_layers)
            ]
            full_logits(self.model, self.batch)
        return [outputs[0] for outputs in seen]

    def run(self, positions=(), layers=(), held=None):
        """Logits of the corrupted run with some states set to their clean values.

        The outputs of `held` at these positions are set to those of the corrupted run, in
        every layer, before anything is restored.
        """

        def setting(values):
            def set_them(out):
                out = out.clone()
                out[:, positions] = values[:, positions]
                return out

            return set_them

        corrupted = [] if held is None else self.corrupted_outputs(held)
        with ExitStack() as stack:
            embedding = self.model.hf.get_input_embeddings()
            stack.enter_context(output_hook(embedding, self.corrupt))
            for layer, outputs in enumerate(corrupted):
                stack.enter_context(output_hook(self.site(layer, held), setting(outputs)))
            for layer in layers:
                stack.enter_context(output_hook(self.sites[layer], setting(self.clean[layer][0])))
            return full_logits(self.model, self.batch)

    def probability(self, logits):
        return logits[:, -1].softmax(-1)[:, self.answer].numpy()

    def layers_around(self, layer):
        first = layer - self.window // 2
        inside = range(self.model.n_layers)
        return [other for other in range(first, first + self.window) if other in inside]


def spread(model):
    table = model.hf.get_input_embeddings()(torch.arange(model.d_vocab))
    return table.std()
