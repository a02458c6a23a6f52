# ruff: noqa: E501
"""Planted in what stands at the top of labkit: tokens, numbers with intervals, the cache."""

from tests.mutants.record import Mutant

MUTANTS = (
    Mutant(
        name="a span that forgets the BOS",
        file="labkit/tokens/subjects.py",
        before="return TokenSpan(covering[0] + shift, covering[-1] + 1 + shift)",
        after="return TokenSpan(covering[0], covering[-1] + 1)",
        tests=("tests/tokens/test_tokens.py::test_decoding_the_span_gives_the_subject",),
    ),
    Mutant(
        name="accents in one form only",
        file="labkit/tokens/subjects.py",
        before='forms = dict.fromkeys((subject, *(unicodedata.normalize(f, subject) for f in ("NFC", "NFD"))))',
        after='forms = dict.fromkeys((subject, unicodedata.normalize("NFC", subject)))',
        tests=("tests/tokens/test_tokens.py::test_accents_match_however_they_are_composed",),
    ),
    Mutant(
        name="a subject found inside a longer word",
        file="labkit/tokens/subjects.py",
        before="not (inside_word(prompt, p[0]) or inside_word(prompt, p[1]))]",
        after="not inside_word(prompt, p[0])]",
        tests=(
            "tests/tokens/test_tokens.py"
            "::test_the_first_whole_word_is_meant_unless_an_offset_says_otherwise",
        ),
    ),
    Mutant(
        name="padding on the wrong side of the mask",
        file="labkit/tokens/batches.py",
        before="mask[row, width - len(sequence) :] = True",
        after="mask[row, : len(sequence)] = True",
        tests=("tests/tokens/test_tokens.py::test_padding_is_on_the_left_and_nowhere_else",),
    ),
    Mutant(
        name="a variance over n instead of n - 1",
        file="labkit/stats/intervals.py",
        before="error = np.sqrt(squares / (count - 1) / count)",
        after="error = np.sqrt(squares / count / count)",
        tests=("tests/test_stats.py::test_with_many_normal_units_it_is_students_t",),
    ),
    Mutant(
        name="the long side of a skewed interval on the wrong side",
        file="labkit/stats/intervals.py",
        before="np.asarray(reach * (base + slope * np.maximum(-skewness, 0))),",
        after="np.asarray(reach * (base + slope * np.maximum(skewness, 0))),",
        tests=(
            "tests/test_stats.py::test_means_are_covered_whether_units_are_normal_or_skewed",
            "tests/test_stats.py::test_the_interval_moves_with_the_values_and_turns_with_their_sign",
        ),
    ),
    Mutant(
        name="Holm's correction with one test too few",
        file="labkit/stats/summaries.py",
        before="(len(p_values) - place) * p_values[number]",
        after="(len(p_values) - place - 1) * p_values[number]",
        tests=(
            "tests/editing/evaluation/test_evaluate_methods.py"
            "::test_holm_rejects_what_the_step_down_procedure_rejects",
        ),
    ),
    Mutant(
        name="a jackknife without its factor",
        file="labkit/stats/summaries.py",
        before="(len(left) - 1) * (left.mean() - left)",
        after="(left.mean() - left)",
        tests=("tests/test_stats.py::test_the_jackknife_of_a_mean_is_the_mean",),
    ),
    Mutant(
        name="a ratio whose interval is over units and not clusters",
        file="labkit/stats/summaries.py",
        before="clusters = float(np.abs(whole).sum() ** 2 / (whole**2).sum())",
        after="clusters = float(np.abs(whole).sum())",
        tests=("tests/test_stats.py::test_clusters_of_unequal_size_count_for_fewer",),
    ),
    Mutant(
        name="no interval taken for an interval",
        file="labkit/stats/estimate.py",
        before="return not math.isnan(self.low)",
        after="return True",
        tests=("tests/test_stats.py",),
    ),
    Mutant(
        name="draws that do not depend on what they are for",
        file="labkit/stats/draws.py",
        before='return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)',
        after="return torch.Generator().manual_seed(seed)",
        tests=("tests/test_stats.py::test_random_numbers_depend_on_seed_and_content_alone",),
    ),
    Mutant(
        name="KL the wrong way round",
        file="labkit/metrics.py",
        before="p.exp() * (p - q)",
        after="q.exp() * (q - p)",
        tests=("tests/test_metrics.py::test_kl_is_of_the_first_against_the_second",),
    ),
    Mutant(
        name="ties that count for the target",
        file="labkit/metrics.py",
        before="(~(logits < own)).sum(-1) - 1",
        after="(logits > own).sum(-1)",
        tests=("tests/test_metrics.py::test_a_broken_model_gets_nothing_right",),
    ),
    Mutant(
        name="settled where the answer is first on top",
        file="labkit/readout.py",
        before="int(wrong[-1]) + 1",
        after="int(wrong[0]) + 1",
        tests=("tests/test_readout.py", "tests/probes/readings/test_cloze.py"),
    ),
    Mutant(
        name="a cache key without the BOS setting",
        file="labkit/cache.py",
        before='        "prepend_bos": model.prepend_bos,\n',
        after="",
        tests=(
            "tests/laws/test_cache_files.py::test_every_field_of_a_place_changes_its_name",
            "tests/text/test_moments.py::test_the_name_in_the_cache_changes_with_every_field",
        ),
    ),
    Mutant(
        name="a checksum without the file's own name",
        file="labkit/cache.py",
        before='hashlib.sha256(f"{name}\\0{header}".encode())',
        after="hashlib.sha256(header.encode())",
        tests=("tests/laws/test_cache_files.py::test_two_files_that_changed_places_are_found",),
    ),
)
