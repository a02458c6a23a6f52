# ruff: noqa: E501
"""Planted in models, partial runs, and the pocket model's training."""

from tests.mutants.record import Mutant

MUTANTS = (
    Mutant(
        name="values as they are stored and not as rows",
        file="labkit/models/model.py",
        before="return weight.T if self.ffn_out_transposed(layer) else weight",
        after="return weight",
        tests=("tests/models/test_models.py::test_the_shape_is_that_of_the_config",),
    ),
    Mutant(
        name="a fingerprint that does not know the tokenizer",
        file="labkit/models/in_effect.py",
        before="    whole.update(tokenizer)\n",
        after="",
        tests=(
            "tests/models/test_models.py::test_the_fingerprint_notices_the_tokenizer_and_the_dtype",
        ),
    ),
    Mutant(
        name="sums of rows alone tell whether a weight is as it was",
        file="labkit/models/in_effect.py",
        before="for part in (table.sum(dim=1), table.sum(dim=0), data[n_rows * COLUMNS * 8 :]):",
        after="for part in (table.sum(dim=1), data[n_rows * COLUMNS * 8 :]):",
        tests=(
            "tests/laws/test_caches.py::test_sums_tell_the_order_of_equal_numbers",
            "tests/laws/test_caches.py::test_the_smallest_change_is_seen",
        ),
    ),
    Mutant(
        name="random models without biases",
        file="labkit/models/random_models.py",
        before="parameter.add_(0.3 * noise)",
        after="parameter.add_(0.0 * noise)",
        tests=("tests/models/test_registry.py::test_a_random_model_is_seeded_and_non_trivial",),
    ),
    Mutant(
        name="rows of several prompts that all take the first prompt's mask",
        file="labkit/running/execute.py",
        before="            return value[rows]\n",
        after="            return value[rows * 0]\n",
        tests=("tests/laws/test_execute.py::test_rows_of_several_prompts_go_together",),
    ),
    Mutant(
        name="positions that count the padding",
        file="labkit/running/execute.py",
        before="positions = (batch.mask.long().cumsum(dim=-1) - 1).clamp(min=0)",
        after="positions = torch.ones_like(batch.ids).cumsum(dim=-1) - 1",
        tests=("tests/laws/test_execute.py::test_next_token_logits_do_not_depend_on_the_batch",),
    ),
    Mutant(
        name="a narrowed mask that sees the future",
        file="labkit/running/execute.py",
        before="own = own.tril(n_keys - n_queries)[None, None]",
        after="own = own[None, None]",
        tests=(
            "tests/locate/test_heads.py::test_a_mask_that_allows_everything_changes_nothing",
            "tests/locate/test_heads.py::test_a_blocked_edge_is_a_score_of_minus_infinity",
        ),
    ),
    Mutant(
        name="a sum over tokens in the place of their mean",
        file="labkit/running/scoring.py",
        before="nll[numbers] = (-own.log_prob / lengths).float()",
        after="nll[numbers] = (-own.log_prob).float()",
        tests=(
            "tests/editing/readings/test_readings.py"
            "::test_scores_are_those_of_the_plain_model_prompt_by_prompt",
        ),
    ),
    Mutant(
        name="a token that shares the first place is said",
        file="labkit/running/scoring.py",
        before="        tops[tops.clone()] = ~ties\n",
        after="",
        tests=("tests/running/test_packed_scoring.py::test_the_most_probable_token_must_be_one",),
    ),
    Mutant(
        name="rows that are pushed as another row should be",
        file="labkit/running/states.py",
        before="out[at] += change[batch.numbers].to(out)",
        after="out[at] += change[sorted(batch.numbers)].to(out)",
        tests=("tests/editing/methods/test_memit.py::test_the_last_layer_takes_what_is_left",),
    ),
    Mutant(
        name="a hook that an error leaves behind",
        file="labkit/running/activations.py",
        before="""    handle = embedding.register_forward_hook(lambda module, args, out: change(out))
    try:
        yield
    finally:
        handle.remove()
""",
        after="""    handle = embedding.register_forward_hook(lambda module, args, out: change(out))
    yield
    handle.remove()
""",
        tests=("tests/running/test_activations.py::test_no_hook_is_left_after_an_exception",),
    ),
    Mutant(
        name="hook points that go on recording",
        file="labkit/running/activations.py",
        before='            del vars(point)["forward"]\n',
        after="            pass\n",
        tests=("tests/running/test_activations.py::test_caching_everything_leaves_no_hook",),
    ),
    Mutant(
        name="local attention that sees two tokens back",
        file="labkit/pocket/attention.py",
        before="near = (back == 0) | (back == 1)",
        after="near = (back == 0) | (back == 1) | (back == 2)",
        tests=("tests/pocket/test_pocket.py::test_local_attention_sees_bos_and_one_token_back",),
    ),
)
