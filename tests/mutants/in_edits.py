"""Planted in edits, what they are applied by, and how they are carried away."""

from tests.mutants.record import Mutant

MUTANTS = (
    Mutant(
        name="a weight put aside without a copy",
        file="editing/edits/applying.py",
        before="saved[name] = parameters[name].detach().clone()",
        after="saved[name] = parameters[name].detach()",
        tests=("tests/editing/edits/test_delta.py::test_weights_come_back_bit_for_bit",),
    ),
    Mutant(
        name="an edit on top of any other",
        file="editing/edits/delta.py",
        before="if other.on_top_of not in (None, self.digest):",
        after="if other.on_top_of is None and False:",
        tests=(
            "tests/editing/edits/test_delta.py"
            "::test_an_edit_follows_only_what_it_was_made_on_top_of",
        ),
    ),
    Mutant(
        name="factors that are both scaled",
        file="editing/edits/change.py",
        before="return LowRank(self.left * factor, self.right)",
        after="return LowRank(self.left * factor, self.right * factor)",
        tests=("tests/editing/edits/test_delta.py::test_scaled_and_taken_back",),
    ),
    Mutant(
        name="the factors beside those that are taken back",
        file="editing/edits/undoing.py",
        before="if not start <= i < start + change.rank]",
        after="if not start < i <= start + change.rank]",
        tests=("tests/editing/edits/test_undo.py::test_in_any_order_what_is_left_is_the_others",),
    ),
    Mutant(
        name="a difference the wrong way round",
        file="editing/edits/difference.py",
        before="Dense((other.detach().double() - weight.detach().double()).float().cpu())",
        after="Dense((weight.detach().double() - other.detach().double()).float().cpu())",
        tests=("tests/editing/edits/test_diff.py::test_the_difference_to_an_export_is_the_delta",),
    ),
    Mutant(
        name="a subject that begins on the sink taken for one that ends there",
        file="editing/edits/requests.py",
        before="at=request.subject_start).last == 0:",
        after="at=request.subject_start).start == 0:",
        tests=(
            "tests/editing/methods/test_values_of_many.py"
            "::test_a_subject_that_is_the_first_token_alone_is_refused",
        ),
    ),
    Mutant(
        name="an adapter scaled by its rank",
        file="editing/export/adapter.py",
        before="lora_alpha=rank,",
        after="lora_alpha=1,",
        tests=(
            "tests/editing/export/test_export_adapter.py::test_plain_peft_opens_the_edited_model",
            "tests/editing/export/test_export_adapter.py::test_a_step_of_several_is_an_adapter_too",
        ),
    ),
    Mutant(
        name="a restored checkpoint with the edit in it twice",
        file="editing/export/restore.py",
        before="for name, change in delta.scaled(-times).changes.items()",
        after="for name, change in delta.scaled(times).changes.items()",
        tests=(
            "tests/editing/edits/test_undo.py"
            "::test_without_the_originals_it_is_near_and_says_how_near",
        ),
    ),
    Mutant(
        name="a preset whose checksum nobody reads",
        file="editing/presets/preset_files.py",
        before='if record.pop("sha256") != _checksum(record) or path',
        after='if record.pop("sha256") and path',
        tests=(
            "tests/editing/layers/test_presets.py::test_a_damaged_preset_is_refused",
            "tests/laws/test_cache_files.py::test_a_damaged_preset_is_named",
        ),
    ),
    Mutant(
        name="leaks to what fills a batch up",
        file="editing/layers/screening.py",
        before="(_answers(keys, w).abs() * mask).amax(dim=-1)",
        after="_answers(keys, w).abs().amax(dim=-1)",
        tests=(
            "tests/editing/layers/test_sweep.py::test_the_screening_is_the_share_of_an_edit"
            "_that_other_keys_are_answered_with",
        ),
    ),
    Mutant(
        name="candidates with the narrowest margins",
        file="editing/layers/screening.py",
        before='parts["margin"] = parts["hit"] - parts["leak"]',
        after='parts["margin"] = parts["leak"] - parts["hit"]',
        tests=(
            "tests/editing/layers/test_sweep.py"
            "::test_only_the_candidates_are_edited_and_they_have_the_widest_margins",
            "tests/editing/layers/test_sweep.py::test_the_screening_is_the_share_of_an_edit"
            "_that_other_keys_are_answered_with",
        ),
    ),
)
