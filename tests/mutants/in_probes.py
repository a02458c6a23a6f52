"""Planted in the probes."""

from tests.mutants.record import Mutant

PROBING = "tests/probes/probing"
READINGS = "tests/probes/readings"

MUTANTS = (
    Mutant(
        name="a threshold at one of the two means",
        file="probes/probing/estimators.py",
        before="self.intercept_ = -(self.coef_ @ means.mean(axis=0))",
        after="self.intercept_ = -(self.coef_ @ means[0])",
        tests=(
            f"{PROBING}/test_estimators.py"
            "::test_the_mean_difference_points_from_one_mean_to_the_other",
        ),
    ),
    Mutant(
        name="folds that cut groups",
        file="probes/probing/estimators.py",
        before="GroupKFold(n_splits=folds).split(labels, labels, groups)",
        after="GroupKFold(n_splits=folds).split(labels, labels, np.arange(len(groups)))",
        tests=(f"{PROBING}/test_estimators.py::test_no_fold_cuts_a_group",),
    ),
    Mutant(
        name="one control label for all word types",
        file="probes/probing/controls.py",
        before='numpy_generator(seed, "control task", task.name, name)',
        after='numpy_generator(seed, "control task", task.name)',
        tests=(
            f"{PROBING}/test_controls.py"
            "::test_a_control_task_has_one_label_a_word_type_drawn_from_the_labels",
        ),
    ),
    Mutant(
        name="shuffled labels that are not shuffled",
        file="probes/probing/controls.py",
        before="task.labels[split.train][draw.permutation(len(split.train))]",
        after="task.labels[split.train][np.arange(len(split.train))]",
        tests=(f"{PROBING}/test_controls.py::test_shuffled_labels_are_the_same_labels",),
    ),
    Mutant(
        name="an interval over examples and not over groups",
        file="probes/probing/scores.py",
        before="numbers = np.unique(groups, return_inverse=True)[1]",
        after="numbers = np.arange(len(groups))",
        tests=(
            f"{PROBING}/test_controls.py::test_intervals_are_over_groups_and_not_over_examples",
        ),
    ),
    Mutant(
        name="a code that knows the portion it sends",
        file="probes/probing/description_length.py",
        before="fitted = _fit(clone(head), states[:stop], labels[:stop])",
        after="fitted = _fit(clone(head), states, labels)",
        tests=(
            f"{PROBING}/test_description_length.py::test_the_code_of_eight_labels_by_hand",
            f"{PROBING}/test_description_length.py"
            "::test_states_that_tell_compress_and_others_do_not",
        ),
    ),
    Mutant(
        name="a configuration with one less than the least",
        file="probes/arguments.py",
        before="if least is not None and number < least:",
        after="if least is not None and number < least - 1:",
        tests=(
            f"{PROBING}/test_probe.py::test_bad_arguments_are_refused_before_the_model_runs",
            f"{READINGS}/test_trees.py::test_what_cannot_be_probed_is_refused",
        ),
    ),
    Mutant(
        name="a fitted probe that multiplies by the scale of its states",
        file="probes/probing/fitted.py",
        before="weight = weight / scaler.scale_",
        after="weight = weight * scaler.scale_",
        tests=(f"{PROBING}/test_fitted.py",),
    ),
    Mutant(
        name="a fitted probe scored on what it was fitted to",
        file="probes/probing/fitted.py",
        before="digest(task.texts[text]) in self.trained_on for",
        after="text in self.trained_on for",
        tests=(f"{PROBING}/test_fitted.py::test_what_it_was_fitted_to_does_not_count",),
    ),
    Mutant(
        name="a split of examples and not of groups",
        file="probes/tasks/task.py",
        before="return self._checked(np.flatnonzero([group in chosen for group in groups]))",
        after="return self._checked(np.arange(n_test))",
        tests=("tests/probes/tasks/test_tasks.py",),
    ),
    Mutant(
        name="a word read at its first token",
        file="probes/states/reading.py",
        before='first = np.array([span[-1] if pieces == "last" else span[0] for span in at])',
        after="first = np.array([span[0] for span in at])",
        tests=(
            "tests/probes/states/test_features.py::test_they_are_the_hidden_states_of_hugging_face",
        ),
    ),
    Mutant(
        name="a token that begins at its space",
        file="probes/states/alignment.py",
        before="return start + len(piece) - len(piece.lstrip()) if piece.strip() else -1",
        after="return start if piece.strip() else -1",
        tests=(
            "tests/probes/states/test_word_alignment.py",
            "tests/probes/states/test_features.py::test_they_are_the_hidden_states_of_hugging_face",
        ),
    ),
    Mutant(
        name="a cache key without the heads",
        file="probes/states/features.py",
        before='        "heads": None if how.heads is None else list(how.heads),\n',
        after="",
        tests=(
            "tests/probes/states/test_features.py"
            "::test_the_cache_is_used_and_every_field_is_in_its_key",
        ),
    ),
    Mutant(
        name="directions in the coordinates of scaled states",
        file="probes/use/directions.py",
        before="torch.tensor(head.coef_ / scaler.scale_, dtype=raw.dtype)",
        after="torch.tensor(head.coef_ * scaler.scale_, dtype=raw.dtype)",
        tests=(f"{READINGS}/test_use.py",),
    ),
    Mutant(
        name="a removal to the origin",
        file="probes/use/directions.py",
        before="along = (states - mean) @ directions.T",
        after="along = states @ directions.T",
        tests=(f"{READINGS}/test_use.py::test_removal_is_a_projection_to_the_mean",),
    ),
    Mutant(
        name="padding that counts among a tree's distances",
        file="probes/trees/structural.py",
        before="there[row, : len(own), : len(own)] = 1",
        after="there[row] = 1",
        tests=(
            f"{PROBING}/test_estimators.py"
            "::test_the_structural_probe_recovers_trees_that_are_there",
        ),
    ),
    Mutant(
        name="paths in a tree counted through the root",
        file="probes/trees/structural.py",
        before="distances[i, j] = len(path) + len(other) - 2 * shared",
        after="distances[i, j] = len(path) + len(other) - 2 if i != j else 0",
        tests=(f"{PROBING}/test_estimators.py::test_distances_in_a_tree",),
    ),
    Mutant(
        name="singular values in the place of their inverses",
        file="probes/relations/relation_operator.py",
        before='einsum(vh[:rank], 1 / sizes, u[:, :rank], "r d_in, r, out r -> d_in out")',
        after='einsum(vh[:rank], sizes, u[:, :rank], "r d_in, r, out r -> d_in out")',
        tests=(
            f"{READINGS}/test_relations.py::test_the_pseudo_inverse_of_full_rank_is_the_inverse"
            "_and_a_smaller_one_projects",
        ),
    ),
    Mutant(
        name="a relation's bias scaled by beta",
        file="probes/relations/relation_operator.py",
        before="return self.beta * states @ weight.T + bias",
        after="return self.beta * (states @ weight.T + bias)",
        tests=(f"{READINGS}/test_relations.py",),
    ),
    Mutant(
        name="a control with an answer of its own",
        file="probes/cloze/objects.py",
        before="others = [i for i in order if not set(tokens[i]) & set(tokens[number])]",
        after="others = [i for i in order if i != number]",
        tests=(f"{READINGS}/test_cloze.py::test_no_control_shares_the_answer",),
    ),
    Mutant(
        name="translators that do not scale with a state",
        file="probes/cloze/translators.py",
        before="return states + added + rms(states) * bias",
        after="return states + added + bias",
        tests=(
            f"{READINGS}/test_translators.py::test_a_states_scale_does_not_matter_to_what_is_read",
        ),
    ),
    Mutant(
        name="a context out of another document",
        file="probes/sentences/treebank.py",
        before="if other.document == sentence.document is not None",
        after="if sentence.document is not None",
        tests=(
            "tests/probes/sentences/test_treebank.py"
            "::test_a_sentence_stands_behind_those_before_it_in_its_document",
        ),
    ),
)
