"""Planted in what FFN neurons write and when."""

from tests.mutants.record import Mutant

MUTANTS = (
    Mutant(
        name="a norm that forgets to centre",
        file="labkit/memories/norms.py",
        before="return x - x.mean(dim=-1, keepdim=True) if self.centred else x",
        after="return x",
        tests=(
            "tests/memories/test_memories_contributions.py"
            "::test_shares_sum_to_the_logit_in_float64",
        ),
    ),
    Mutant(
        name="shares without the FFN's bias",
        file="labkit/memories/composition.py",
        before="rest += float(bias.double().cpu() @ direction)",
        after="rest += 0.0",
        tests=(
            "tests/memories/test_memories_contributions.py"
            "::test_shares_sum_to_the_logit_in_float64",
        ),
    ),
    Mutant(
        name="random neurons among which are those named",
        file="labkit/memories/switching.py",
        before="np.setdiff1d(np.arange(model.d_mlp), [n for at, n in named if at == layer])",
        after="np.arange(model.d_mlp)",
        tests=(
            "tests/memories/test_memories_contributions.py"
            "::test_controls_are_as_many_other_neurons_of_the_same_layers",
        ),
    ),
    Mutant(
        name="one position too many is looked at",
        file="labkit/memories/streaming.py",
        before="seen = batch.mask.cumsum(dim=1) > SKIPPED",
        after="seen = batch.mask.cumsum(dim=1) >= SKIPPED",
        tests=(
            "tests/memories/test_memories.py"
            "::test_neither_the_batches_nor_the_order_of_documents_matter",
        ),
    ),
    Mutant(
        name="the token before a trigger taken for the one behind it",
        file="labkit/memories/triggers.py",
        before="at = self.pos + shift",
        after="at = self.pos - shift",
        tests=(
            "tests/memories/test_memories.py::test_the_shown_context_is_the_text_of_the_corpus",
        ),
    ),
    Mutant(
        name="a z score divided by the variance",
        file="labkit/memories/writing.py",
        before="z = logits / variance.clamp(min=1e-30).sqrt()",
        after="z = logits / variance.clamp(min=1e-30)",
        tests=(
            "tests/memories/test_memories.py::test_the_writer_that_was_planted_is_found",
            "tests/memories/test_memories.py::test_writers_agree_with_words",
        ),
    ),
)
