"""Planted in the study of in-context learning."""

from tests.mutants.record import Mutant

MUTANTS = (
    Mutant(
        name="spans of a prompt that forget the BOS",
        file="labkit/icl/tasks/prompts.py",
        before='offsets, shift = encoding["offset_mapping"], int(model.prepend_bos)',
        after='offsets, shift = encoding["offset_mapping"], 0',
        tests=("tests/icl/test_prompts.py::test_spans_decode_to_what_they_claim",),
    ),
    Mutant(
        name="calibration that adds the bias once more",
        file="labkit/icl/asking/measures.py",
        before="wide = wide - np.log(np.maximum(shares_of(free)",
        after="wide = wide + np.log(np.maximum(shares_of(free)",
        tests=(
            "tests/icl/test_demonstrations.py"
            "::test_calibration_takes_out_what_is_said_about_nothing",
        ),
    ),
    Mutant(
        name="permuted labels that stand where they stood",
        file="labkit/icl/behaviour/conditions.py",
        before='labels = [labels[place] for place in draw("order", k).permutation(k)]',
        after="labels = list(labels)",
        tests=(
            "tests/icl/test_demonstrations.py::test_labels_that_are_changed",
            "tests/icl/test_demonstrations.py::test_permuted_labels_keep_the_marginals_exactly",
        ),
    ),
    Mutant(
        name="a wrong label that may be the right one",
        file="labkit/icl/behaviour/conditions.py",
        before="steps = draw.integers(1, len(task.labels), size=len(items))",
        after="steps = draw.integers(0, len(task.labels), size=len(items))",
        tests=(
            "tests/icl/test_demonstrations.py::test_labels_that_are_kept",
            "tests/icl/test_demonstrations.py::test_labels_that_are_changed",
        ),
    ),
    Mutant(
        name="a state put back one block too early",
        file="labkit/icl/inside/vectors.py",
        before="self.run.forward(some[:, None], start=layer + 1, rows=rows)[:, 0]",
        after="self.run.forward(some[:, None], start=layer, rows=rows)[:, 0]",
        tests=("tests/icl/test_task_vectors.py::test_a_vector_does_what_a_hook_by_hand_does",),
    ),
    Mutant(
        name="a placebo of another norm",
        file="labkit/icl/inside/vectors.py",
        before="noise = noise / noise.norm(dim=-1, keepdim=True)",
        after="noise = noise / vectors.shape[-1] ** 0.4",
        tests=("tests/icl/test_task_vectors.py::test_a_placebo_has_the_norm_and_no_direction",),
    ),
    Mutant(
        name="random heads out of all heads",
        file="labkit/icl/inside/function_vectors.py",
        before="others = self.placebos(task, outputs, order[self.heads :], own)",
        after="others = self.placebos(task, outputs, order, own)",
        tests=(
            "tests/icl/test_function_vectors.py::test_placebos_are_drawn_from_heads_that_are_not_in_the_vector",
        ),
    ),
    Mutant(
        name="mean outputs in which the first position counts",
        file="labkit/icl/inside/ablating.py",
        before="sums = [own[:, 1:].double().sum(dim=(0, 1)) for own in outputs]",
        after="sums = [own[:, :-1].double().sum(dim=(0, 1)) for own in outputs]",
        tests=(
            "tests/icl/test_heads.py::test_a_mean_stands_in_the_heads_place_alone",
            "tests/icl/test_heads.py::test_switching_the_circuit_off_destroys_copying"
            "_and_random_heads_do_not",
        ),
    ),
    Mutant(
        name="a learner that is shown the answer",
        file="labkit/icl/implicit/regression_learners.py",
        before="torch.cat([torch.zeros_like(sums[:, :1]), sums.cumsum(dim=1)[:, :-1]], dim=1)\n"
        "        for sums in (outer, product)",
        after="sums.cumsum(dim=1)\n        for sums in (outer, product)",
        tests=("tests/icl/test_regression.py::test_learners_see_what_is_before_and_nothing_else",),
    ),
    Mutant(
        name="a step of descent that forgets the mean over examples",
        file="labkit/icl/implicit/descent.py",
        before="P.fill_diagonal_(rate / n_examples)",
        after="P.fill_diagonal_(rate)",
        tests=("tests/icl/test_descent.py::test_one_layer_is_one_step_of_gradient_descent",),
    ),
)
