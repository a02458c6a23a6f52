"""Planted in what is read of an edited model, in the protocols and tables, and in the demo."""

from tests.mutants.record import Mutant

EVALUATION = "tests/editing/evaluation"

MUTANTS = (
    Mutant(
        name="an answer that is part of a longer word",
        file="editing/readings/implication.py",
        before='re.search(rf"(?<!\\w){re.escape(name.strip())}(?!\\w)", text, flags=re.IGNORECASE)',
        after="re.search(re.escape(name.strip()), text, flags=re.IGNORECASE)",
        tests=(
            "tests/editing/readings/test_portability.py"
            "::test_any_name_of_the_answer_counts_and_parts_of_words_do_not",
        ),
    ),
    Mutant(
        name="unrelated facts that the edit names by an alias",
        file="editing/readings/forgetting.py",
        before="for name in (fact.subject, *fact.answers))",
        after="for name in (fact.subject,))",
        tests=(
            "tests/editing/readings/test_side_effects.py"
            "::test_what_is_measured_has_nothing_to_do_with_the_edit",
        ),
    ),
    Mutant(
        name="a sign that is early at the same number of edits",
        file="editing/readings/collapse.py",
        before="crossed is not None and crossed < fell",
        after="crossed is not None and crossed <= fell",
        tests=(
            f"{EVALUATION}/test_evaluate_protocols.py"
            "::test_a_sign_is_early_if_it_was_seen_at_fewer_edits",
        ),
    ),
    Mutant(
        name="divergence on text from the edited model",
        file="editing/readings/side_effects.py",
        before="kl=tuple(material.text.kl_to(text).double().tolist()),",
        after="kl=tuple(text.kl_to(material.text).double().tolist()),",
        tests=("tests/editing/readings/test_side_effects.py::test_kl_is_that_of_full_forwards",),
    ),
    Mutant(
        name="sequential edits each made on the bare model",
        file="editing/evaluation/protocols.py",
        before="before = None if single else total",
        after="before = None",
        tests=(
            f"{EVALUATION}/test_evaluate_protocols.py"
            "::test_each_sequential_call_is_made_on_top_of_the_ones_before",
        ),
    ),
    Mutant(
        name="an evaluation recorded without the facts that its chains are walked on",
        file="editing/evaluation/options.py",
        before="None if self.chains is None else self.chains.digest",
        after="self.chains is not None",
        tests=(
            f"{EVALUATION}/test_evaluate_methods.py"
            "::test_two_evaluations_have_different_records_and_equal_ones_the_same",
        ),
    ),
    Mutant(
        name="layers screened on the model's own text where another was named",
        file="editing/layers/sweep.py",
        before="            corpus=how.corpus,\n        ),",
        after="        ),",
        tests=(
            "tests/editing/layers/test_sweep.py"
            "::test_a_corpus_is_behind_the_screening_as_behind_the_edits",
        ),
    ),
    Mutant(
        name="a pair of methods compared on cases that only one has",
        file="editing/evaluation/pairs.py",
        before="units = [unit for unit in values[first] if unit in values[second]]",
        after="units = list(values[first])",
        tests=(
            f"{EVALUATION}/test_evaluate_methods.py"
            "::test_pairs_are_compared_on_the_cases_that_both_have",
        ),
    ),
    Mutant(
        name="a score that is no harmonic mean",
        file="editing/evaluation/evaluation_result.py",
        before="return float(len(array) / (1 / array).sum()) if (array > 0).all() else 0.0",
        after="return float(array.mean()) if (array > 0).all() else 0.0",
        tests=(f"{EVALUATION}/test_evaluate.py::test_known_answers_give_exact_metrics",),
    ),
    Mutant(
        name="a table that shows the edited model as the unedited one",
        file="editing/evaluation/method_table.py",
        before='shown = states["unedited" if state == "before" else "edited"]',
        after='shown = states["edited"]',
        tests=(
            f"{EVALUATION}/test_evaluate_methods.py::test_the_table_says_what_each_evaluation_says",
        ),
    ),
    Mutant(
        name="cases of the final state read on the bare model",
        file="editing/evaluation/final_state.py",
        before="after, carried = unedited.read(cases, edit), unedited.carried(cases, edit)",
        after="after, carried = unedited.read(cases, None), unedited.carried(cases, edit)",
        tests=(
            f"{EVALUATION}/test_evaluate_protocols.py::test_every_case_is_read_on_the_final_state",
        ),
    ),
    Mutant(
        name="a second process that runs files of the working folder",
        file="labkit/demo/checkpoint.py",
        before='ISOLATED = ("-P",)',
        after="ISOLATED = ()",
        tests=("tests/models/test_strangers.py::test_files_of_the_working_folder_are_not_run",),
    ),
)
