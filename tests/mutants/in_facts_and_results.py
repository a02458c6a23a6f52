# ruff: noqa: E501
"""Planted in facts, text, results and figures."""

from tests.mutants.record import Mutant

MUTANTS = (
    Mutant(
        name="a fact that is known although another answer is likelier",
        file="labkit/facts/known.py",
        before='"""Those with rank 1."""\n        return tuple(row for row in self.asked if row.rank == 1)',
        after='"""Those with rank 1."""\n        return tuple(row for row in self.asked if row.rank <= 2)',
        tests=("tests/facts/test_facts.py::test_known_facts_ranks_as_the_plain_model_does",),
    ),
    Mutant(
        name="an answer without its aliases",
        file="labkit/facts/fact.py",
        before="return self.aliases if self.object is None else (self.object, *self.aliases)",
        after="return self.aliases if self.object is None else (self.object,)",
        tests=(
            "tests/facts/test_facts.py::test_a_fact_is_known_if_the_top_token_begins_an_answer",
        ),
    ),
    Mutant(
        name="a subject that has the new object is a neighbour",
        file="labkit/facts/cases.py",
        before="rest = [other for other in others if new_object not in other.answers]",
        after="rest = list(others)",
        tests=(
            "tests/facts/test_facts.py::test_a_case_has_neighbours_of_both_kinds",
            "tests/facts/test_facts.py::test_a_case_takes_what_there_is_of_one_kind",
        ),
    ),
    Mutant(
        name="a chain of two steps that ends at the first",
        file="labkit/facts/chains.py",
        before="yield Path(prompt=prompt, facts=(fact, last))",
        after="yield Path(prompt=prompt, facts=(last, fact))",
        tests=("tests/facts/test_chains.py",),
    ),
    Mutant(
        name="what fills a batch up is counted as keys",
        file="labkit/text/moments.py",
        before='keys = seen["ffn_key", layer][batch.mask]',
        after='keys = seen["ffn_key", layer].flatten(0, 1)',
        tests=("tests/text/test_moments.py::test_what_fills_a_batch_up_is_not_counted",),
    ),
    Mutant(
        name="C in the place of its inverse",
        file="labkit/text/moments.py",
        before="solved = torch.cholesky_solve(keys.double().cpu().T, self._cholesky).T",
        after="solved = keys.double().cpu() @ self.matrix",
        tests=("tests/text/test_moments.py::test_solving_divides_by_the_matrix_with_its_ridge",),
    ),
    Mutant(
        name="a blend with its two shares exchanged",
        file="labkit/text/moments.py",
        before="(1 - share) * self.matrix + share * other.matrix",
        after="share * self.matrix + (1 - share) * other.matrix",
        tests=(
            "tests/text/test_moments.py"
            "::test_a_blend_of_two_corpora_is_the_second_moment_of_their_mixture",
        ),
    ),
    Mutant(
        name="a torn last line that stays when a run is resumed",
        file="labkit/results/runs.py",
        before='os.truncate(file_path, file_path.read_bytes().rfind(b"\\n") + 1)',
        after='file_path.read_bytes().rfind(b"\\n")',
        tests=("tests/results/test_results.py::test_a_killed_run_goes_on_where_it_stopped",),
    ),
    Mutant(
        name="a run resumed with another model",
        file="labkit/results/runs.py",
        before='if before.get("fingerprint") != now.get("fingerprint"):',
        after='if before.get("name") != now.get("name"):',
        tests=(
            "tests/results/test_results.py"
            "::test_a_run_is_only_resumed_when_asked_and_only_as_itself",
        ),
    ),
    Mutant(
        name="a number that is none written as null",
        file="labkit/results/encoding.py",
        before="return float(value) if math.isfinite(value) else _NOT_FINITE[str(float(value))]",
        after="return float(value) if math.isfinite(value) else None",
        tests=("tests/results/test_results.py::test_every_kind_of_value_becomes_plain_json",),
    ),
    Mutant(
        name="quartiles drawn at the ends of the interval",
        file="labkit/plots/locate/averages.py",
        before='add_band(figure, rows["layer"], rows["q25"], rows["q75"], INK, alpha=0.18, **where)',
        after='add_band(figure, rows["layer"], rows["low"], rows["high"], INK, alpha=0.18, **where)',
        tests=(
            "tests/locate/test_tracing_figures.py"
            "::test_every_role_has_its_panel_with_band_and_quartiles",
        ),
    ),
    Mutant(
        name="a lens coloured by the wrong number",
        file="labkit/plots/lens.py",
        before='z = shown.pivot(index="layer", columns="pos", values="probability")',
        after='z = shown.pivot(index="layer", columns="pos", values="layer")',
        tests=("tests/plots/test_plots.py::test_the_lens_table_puts_each_top_token_in_its_cell",),
    ),
    Mutant(
        name="a result that names the model as it was loaded",
        file="labkit/results/measured.py",
        before='"fingerprint": source.in_effect}',
        after='"fingerprint": source.loaded.fingerprint}',
        tests=(
            "tests/results/test_measured.py"
            "::test_a_result_has_the_fingerprint_of_the_weights_in_effect",
        ),
    ),
)
