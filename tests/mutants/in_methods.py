"""Planted in the editing methods."""

from tests.mutants.record import Mutant

CLOSED = "editing/methods/closed_form"
TESTS = "tests/editing/methods"

MUTANTS = (
    Mutant(
        name="a residual that forgets the bias",
        file=f"{CLOSED}/writing.py",
        before="return answer if bias is None else answer + bias.double()",
        after="return answer",
        tests=(
            f"{TESTS}/test_rome.py::test_the_edited_module_answers_so_too",
            f"{TESTS}/test_rome.py::test_the_key_is_answered_with_the_value",
        ),
    ),
    Mutant(
        name="factors in the wrong orientation of the parameter",
        file=f"{CLOSED}/writing.py",
        before="left, right = right.T, left.T",
        after="left, right = right.T, left.T.flip(0)",
        tests=(f"{TESTS}/test_emmet.py::test_every_key_is_answered_with_its_value",),
    ),
    Mutant(
        name="the key at the subject's first token",
        file=f"{CLOSED}/keys.py",
        before="return Placed(model.ids(prompt), span.last)",
        after="return Placed(model.ids(prompt), span.start)",
        tests=(
            f"{TESTS}/test_rome.py"
            "::test_keys_are_what_enters_the_projection_at_the_subjects_last_token",
        ),
    ),
    Mutant(
        name="a mean over contexts that leaves the bare prompt out",
        file=f"{CLOSED}/keys.py",
        before="(1 - bare_weight) * keys.mean(dim=-2)",
        after="(1 - bare_weight) * keys[..., -1:, :].mean(dim=-2)",
        tests=(f"{TESTS}/test_rome.py::test_k_star_weighs_the_bare_key_against_the_mean",),
    ),
    Mutant(
        name="a weight that is not in units of d_mlp",
        file=f"{CLOSED}/solve.py",
        before="self.moment.solve(keys.double()) / (self.weight * keys.shape[1])",
        after="self.moment.solve(keys.double()) / self.weight",
        tests=(f"{TESTS}/test_solve.py::test_the_unit_of_the_weight_is_the_key_that_occurs",),
    ),
    Mutant(
        name="earlier keys that cost less than nothing",
        file=f"{CLOSED}/solve.py",
        before="            - torch.cholesky_solve(directions @ keys.double().T, factor)",
        after="            + torch.cholesky_solve(directions @ keys.double().T, factor)",
        tests=(f"{TESTS}/test_solve.py::test_a_metric_divides_by_its_matrix",),
    ),
    Mutant(
        name="a null space of the usual directions",
        file=f"{CLOSED}/solve.py",
        before="basis = directions[:, n_kept:] if outside else directions[:, :n_kept]",
        after="basis = directions[:, n_kept:] if outside else directions[:, -n_kept:]",
        tests=(
            f"{TESTS}/test_solve.py"
            "::test_what_is_left_out_of_the_null_space_is_all_but_a_share_of_the_trace",
            f"{TESTS}/test_solve.py::test_in_a_null_space_it_is_least_squares_in_its_coordinates",
        ),
    ),
    Mutant(
        name="a share for one layer too many",
        file=f"{CLOSED}/spreading.py",
        before="n_left = len(plan.layers) - n_done",
        after="n_left = len(plan.layers) - n_done + 1",
        tests=(f"{TESTS}/test_memit.py::test_the_first_layer_is_handed_its_share",),
    ),
    Mutant(
        name="later layers that do not see what is written",
        file=f"{CLOSED}/spreading.py",
        before="        with applied(plan.model, writer.so_far):\n"
        '            seen = plan.states([("ffn_key", layer), goal])',
        after='        if True:\n            seen = plan.states([("ffn_key", layer), goal])',
        tests=(f"{TESTS}/test_memit.py::test_the_last_layer_takes_what_is_left",),
    ),
    Mutant(
        name="the divergence from the anchor the wrong way round",
        file=f"{CLOSED}/values.py",
        before="distance = (anchors.exp() * (anchors - held)).sum(-1)",
        after="distance = (held.exp() * (held - anchors)).sum(-1)",
        tests=(f"{TESTS}/test_values.py::test_loss_and_gradient_are_those_of_full_runs",),
    ),
    Mutant(
        name="a share of a write that is not one at its own key",
        file=f"{CLOSED}/bystanders.py",
        before="shares = (directions / own) @ self.keys[layer].double().T",
        after="shares = directions @ self.keys[layer].double().T",
        tests=(
            f"{TESTS}/test_bystanders.py::test_a_share_is_what_the_write_answers_their_key_with",
        ),
    ),
    Mutant(
        name="what was learnt without alpha / rank",
        file="editing/methods/tuning/lora.py",
        before="return LowRank(first, second * (self.alpha / self.rank))",
        after="return LowRank(first, second)",
        tests=(f"{TESTS}/test_lora.py::test_the_delta_does_what_was_learnt",),
    ),
    Mutant(
        name="targets read one position too early",
        file="editing/methods/tuning/training.py",
        before="(place, offset - len(target), token)",
        after="(place, offset - len(target) - 1, token)",
        tests=(f"{TESTS}/test_fine_tuning.py::test_two_steps_are_those_of_the_whole_model",),
    ),
    Mutant(
        name="a ball that is not there",
        file="editing/methods/tuning/fine_tuning.py",
        before="if norm > self.radius:  # a hair inside",
        after="if norm > self.radius * 2:  # a hair inside",
        tests=(
            f"{TESTS}/test_fine_tuning.py::test_the_change_stays_in_the_ball",
            f"{TESTS}/test_fine_tuning.py::test_the_nearest_point_of_the_ball",
        ),
    ),
    Mutant(
        name="a push whatever the activation's sign",
        file="editing/methods/neuron_editing.py",
        before="values[at] = values.get(at, 0) + active[at].sign() * towards",
        after="values[at] = values.get(at, 0) + towards",
        tests=(
            f"{TESTS}/test_neuron_editing.py"
            "::test_the_neurons_found_get_the_new_object_for_the_old",
        ),
    ),
    Mutant(
        name="an earlier edit of the same prompt that stays",
        file="editing/methods/in_context.py",
        before="kept = tuple(rewrite for rewrite in self.rewrites if rewrite.prompt not in later)",
        after="kept = tuple(rewrite for rewrite in self.rewrites if rewrite not in later)",
        tests=(
            f"{TESTS}/test_in_context.py::test_edits_follow_one_another_and_the_later_one_holds",
        ),
    ),
)
