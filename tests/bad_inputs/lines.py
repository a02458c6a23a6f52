"""The command lines by kind, each with what should become of it.

"refused" is one line that says what is wrong, and nothing left; "done" is for what only looks
wrong: text that is no markup, names in any script, outputs that are links or pipes.
"""

from collections.abc import Iterator

from labkit.pocket import demo_case
from tests.bad_inputs.material import FIELDS, TEXTS

Line = tuple[tuple[str, ...], str]

REWRITE = demo_case().rewrite
PROMPT, SUBJECT, NEW = REWRITE.prompt, REWRITE.subject, str(REWRITE.target_new)
POCKET = ("--model", "pocket")
TRACE = ("trace", *POCKET, "--prompt", PROMPT, "--subject", SUBJECT, "--samples", "1")
NEURONS = ("neurons", *POCKET, "--prompt", PROMPT, "--subject", SUBJECT, "--draws", "1")
EDIT = ("edit", *POCKET, "--rewrites", "rewrites.jsonl")
ONE = ("edit", *POCKET, "--prompt", PROMPT, "--subject", SUBJECT, "--target", NEW)
FT = ("--method", "ft:training.steps=2:layer=1")
EVALUATE = ("evaluate", *POCKET, "--cases", "cases.jsonl", "--tokens", "0")
EXPORT = ("export", *POCKET)
PROBE = ("probe", *POCKET, "--task", "relation", "--n-train", "20")
ICL = ("icl", *POCKET, "--task", "city_river", "--queries", "2", "--draws", "1", "--k", "1")
SWEEP = ("sweep", *POCKET, "--cases", "cases.jsonl", "--no-keep")
CLOZE = ("cloze", *POCKET, "--limit", "2")

WITH_OUT = {
    "trace": TRACE,
    "neurons": NEURONS,
    "edit": (*EDIT, *FT),
    "evaluate": (*EVALUATE, *FT),
    "export": (*EXPORT, "--delta", "delta"),
    "map": ("probe", "map", *POCKET, "--tasks", "relation", "--n-train", "20"),
    "structural": ("probe", "structural", *POCKET),
    "cloze": CLOZE,
    "icl": ICL,
    "sweep": (*SWEEP, "--layers", "0"),
    "demo": ("demo", *POCKET),
    "undo": ("undo", "--total", "delta", "--delta", "delta"),
    "diff": ("diff", "--model", "random-llama", "--edited", "model"),
    "train": ("pocket", "train"),
}
NEED_MODEL = {
    "predict": lambda model: ("predict", model, "the"),
    "trace": lambda model: ("trace", "--model", model, *TRACE[3:], "--out", "new"),
    "edit": lambda model: ("edit", "--model", model, *EDIT[3:], "--out", "new"),
    "evaluate": lambda model: ("evaluate", "--model", model, *EVALUATE[3:]),
    "export": lambda model: ("export", "--model", model, "--delta", "delta", "--out", "new"),
}
MODELS = (
    "", " ", "pokcet", "random-", "random-bert", "./nothing", "full", "file", "~nouser/model",
    "a" * 300, "a/" * 40 + "b", "nobody/nothing", "../..", "[/b]", "model_no_config",
    "model_torn_config", "model_null_config", "model_no_weights", "model_cut_weights",
    "model_nan_weights", "model_no_tokenizer", "delta", "\udcff", "modèle", "/dev/null",
)  # fmt: skip
OUTS = {  # where nothing can be put
    "full": "full", "a file": "file", "a link to a file": "link", "a circle": "circle",
    "below a file": "file/x", "too long": "n" * 300, "a device": "/dev/null",
    "here": ".", "no name": "", "a link to nothing": "link_to_nothing", "process": "/proc/x/y",
}  # fmt: skip


def usage() -> Iterator[Line]:
    """No such command or option, and combinations that mean nothing."""
    for line in (
        ("trase",), ("predict",), ("predict", "pocket"), ("predict", "pocket", "a", "b"),
        ("--model", "pocket", "predict"), ("trace", "--promt", "x"), ("probe", "mapp"),
        ("memories", "neuron"), ("icl", "ordr"), ("pocket", "tran"), ("edit",), ("evaluate",),
        ("export", "--out", "x"), ("undo", "--out", "x", "--delta", "delta"), ("[/b]",), ("",),
        ("diff", "--out", "x"), ("fetch",), ("fetch", "gpt5"), ("fetch", ""), ("lab", "nowhere"),
        ("lab", "file"), ("models", "x"), ("predict", "pocket", "the", "--k"), ("--verson",),
        ("undo", "--out", "x", "--delta", "delta", "--total", "delta", "--model", "delta"),
        (*TRACE, "--out", "x", "--facts", "facts.jsonl"), (*TRACE, "--out", "x", "--limit", "1"),
        ("trace", *POCKET, "--prompt", PROMPT, "--out", "x"), ("trace", *POCKET, "--out", "x"),
        ("trace", *POCKET, "--facts", "facts.jsonl", "--answer", "x", "--out", "x"),
        (*ONE, "--rewrites", "rewrites.jsonl", "--out", "x"), (*ONE[:-2], "--out", "x"),
        (*EVALUATE, "--method", "rome", "--methods", "memit"),
        (*EVALUATE, "--methods", "rome,rome"), (*EVALUATE, "--methods", "rome,rome:layer=1,"
         "rome:layer=1"), (*EVALUATE, "--methods", ","), (*EVALUATE, "--methods", ""),
        (*EVALUATE, "--protocol", "batched"), (*EVALUATE, "--protocol", ""),
        (*EVALUATE, "--chunk", "2"), (*EVALUATE, "--chunk", "2", "--protocol", "batch"),
        (*EXPORT, "--delta", "delta", "--format", "onnx", "--out", "x"),
        (*EXPORT, "--delta", "delta", "--format", "peft", "--dtype", "float16", "--out", "x"),
        (*EXPORT, "--delta", "delta", "--format", "peft", "--no-originals", "--out", "x"),
        (*EXPORT, "--delta", "delta", "--base", "file", "--out", "x"),
        (*EXPORT, "--delta", "delta", "--format", "gguf", "--base", "file", "--out", "x"),
        (*EXPORT, "--delta", "delta", "--format", "gguf", "--base", "gone", "--out", "x"),
        (*EXPORT, "--delta", "delta", "--format", "gguf", "--out", "x"),
        ("probe",), ("probe", "--task", "upos", "map", "--out", "x"),
        ("probe", *POCKET, "--task", "relation", "--test", "file"),
        ("probe", *POCKET, "--task", "relation", "--context", "2"),
        ("cloze", *POCKET, "--facts", "facts.jsonl", "--relations", "full"),
        ("icl", *POCKET, "instruct", "--task", "city_river"),
        ("icl", "instruct", *POCKET, "--task", "city_river", "--instruction", "do it"),
        ("sweep", *POCKET, "--cases", "two.jsonl", "--no-keep"),
        ("sweep", *POCKET, "--method", "in_context"), ("sweep", *POCKET, "--method", "kn"),
    ):  # fmt: skip
        yield line, "refused"
    yield ("--version",), "done"
    yield ("--help",), "done"
    yield ("models",), "done"


def models() -> Iterator[Line]:
    """Models that are none."""
    for name in MODELS:
        for make in (NEED_MODEL["predict"], NEED_MODEL["edit"]):
            yield make(name), "refused"
    for make in NEED_MODEL.values():
        yield make("model_torn_config"), "refused"
        yield make("pokcet"), "refused"
    yield ("export", "--model", "random-llama", "--delta", "delta", "--out", "x"), "refused"
    yield ("diff", *POCKET, "--edited", "model", "--out", "x"), "refused"
    yield ("diff", "--model", "random-llama", "--edited", "model", "--out", "x"), "refused"
    for dtype in ("fp8", "", "float", "int8", "FLOAT32 ", "torch.float32", "[/b]"):
        yield ("predict", "pocket", "the", "--dtype", dtype), "refused"


def numbers() -> Iterator[Line]:
    """Numbers that are none, out of their range, or too large for any machine."""
    wrong = ("x", "", "1.5", "nan", "inf", "1e3", "--1", "0x10", "9" * 40)
    for value in wrong:
        yield ("predict", "pocket", "the", "--k", value), "refused"
        yield (*TRACE, "--out", "x", "--seed", value), "refused" if value != "9" * 40 else "done"
    for value in ("0", "-1", "100000000", "9" * 30):
        yield ("predict", "pocket", "the", "--k", value), "refused"
        yield (*TRACE[:-2], "--samples", value, "--out", "x"), "refused"
        yield (*NEURONS[:-2], "--draws", value, "--out", "x"), "refused"
        yield (
            ("memories", "contributions", PROMPT, *POCKET, f"--k={value}"),
            ("refused" if value in ("0", "-1") else "done"),
        )
        yield (
            ("memories", "writers", "the", *POCKET, f"--k={value}"),
            ("refused" if value in ("0", "-1") else "done"),
        )
        yield (*ICL[:-4], "--draws", value, "--k", "1"), "refused"
        yield ("icl", "order", *ICL[1:5], "--sets", value), "refused"
        yield ("icl", "order", *ICL[1:5], "--orders", value), "refused"
        yield ("icl", *ICL[1:5], "--queries", value), "refused"
        yield ("probe", "structural", *POCKET, f"--rank={value}", "--depths", "0"), "refused"
    for value in ("-1", "-7", "x", "1.5"):
        yield (*EVALUATE, "--tokens", value), "refused"
        yield (*EVALUATE, "--limit", value), "refused"
        yield (*EVALUATE, "--chunk", value), "refused"
    for value in ("99", "-1", "x", "1.5", "100000000000"):
        yield (*EDIT, "--layer", value, "--out", "x"), "refused"
        yield ("memories", "neuron", value, "0", *POCKET), "refused"
        yield ("memories", "neuron", "0", value if value != "99" else "99999", *POCKET), "refused"
    for value in ("0-1000000000", "44", "3-1", "-1", "a-b", "", ",", "1,,2", "0-", "1e3", " "):
        yield (*PROBE, "--depths", value), "refused"
        yield (*SWEEP, "--layers", value), "refused"
    yield (
        ("probe", "map", *POCKET, "--tasks", "relation", "--depths", "44", "--out", "mp"),
        ("refused"),
    )
    for value in ("nan", "inf", "-1", "x", "-inf"):
        yield ("diff", "--model", "random-llama", "--edited", "model", "--tolerance", value,
               "--out", "x"), "refused"  # fmt: skip
    for option in ("--threshold", "--shared"):
        for value in ("nan", "0", "-1", "1.5", "inf", "x"):
            yield (*NEURONS, option, value, "--out", "x"), "refused"
    for k in ("0,-1", "x", "", "1,,2", "100000", "1;2", "1.5"):
        yield (*ICL[:-1], k), "refused"


def methods() -> Iterator[Line]:
    """Methods, and fields behind their names, that are none."""
    for method in (
        "", "rune", "ROME ", "rome:", "rome:layer", "rome:layr=1", "rome:layer=x", "rome:layer=99",
        "rome:layer=-1", "rome:=3", "rome:search=3", "rome:search.stps=3", "rome:search.steps=0",
        "rome:search.steps=-5", "rome:search.steps=1000000000", "rome:search.lr=nan",
        "rome:search.lr=-1", "rome:search.lr=inf", "rome:search.decay=-1", "rome:search.clamp=0",
        "rome:search.enough=2", "rome:search.kl_factor=-1", "rome:n_contexts=0",
        "rome:n_contexts=-1", "rome:n_contexts=100000000", "rome:bare_weight=2",
        "rome:facts_share=-1", "rome:covariance=maybe", "memit:weight=inf", "memit:weight=nan",
        "memit:weight=0", "memit:weight=-1", "memit:layers=[]", "memit:layers=[2,1]",
        "memit:layers=[1,1]", "memit:layers=[99]", "memit:layers=1", "memit:layers=[1", "rome:[/b]",
        "memit:layers={}", "emmet:weight=inf", "alphaedit:threshold=0", "alphaedit:threshold=nan",
        "alphaedit:threshold=2", "ft:training.steps=0", "ft:training.lr=inf", "ft:training.lr=nan",
        "ft:training.steps=100000000000", "ft:training.batch=0", "ft:ball.radius=1", "ft:layer=99",
        "ft_constrained:ball.radius=0", "ft_constrained:ball.radius=inf", "lora:alpha=inf",
        "ft_constrained:ball.norm=3", "lora:rank=0", "lora:rank=1000000000", "lora:rank=99999",
        "lora:layers=[]", "lora:alpha=0", "kn:n_neurons=0", "kn:add=nan", "kn:remove=-1",
        "kn:locator.steps=0", "kn:locator.threshold=2", "in_context", "in_context:shown=0",
        "rome:seed=x", "rome:layer=1:layer", "rome::layer=1", "rome layer=1",
    ):  # fmt: skip
        yield (*EDIT, "--method", method, "--out", "x"), "refused"
    yield (*EDIT, "--method", "kn", "--layer", "1", "--out", "x"), "refused"
    yield (*EDIT, "--method", "memit:spread=sideways", "--out", "x"), "refused"
    yield (*EVALUATE, "--methods", "../x,rome"), "refused"
    yield (*EVALUATE, "--methods", "in_context:demonstrations=1000000000"), "refused"
    yield (*EVALUATE, "--protocol", "batch", "--cases", "two.jsonl"), "refused"


def texts() -> Iterator[Line]:
    """Prompts, subjects and answers: empty, absent, unknown; and text that is no markup."""
    for prompt in ("", " ", "\n", "the " * 5000):
        yield ("predict", "pocket", prompt), "refused"
    for prompt in ("see [/x]", "[red]x[/red]", "[link=x]", ":smile:", "a\nb", "a\tb", "\x1b[31m",
                   "[/]", "[bold", "]", "\\[x]", "日本", "🦙", "é", "<b>", "%s {} {0}",
                   "$HOME", "-", "x" * 500):  # fmt: skip
        yield ("predict", "pocket", "--k", "2", "--", prompt), "done"
    yield ("predict", "pocket", "a\udcffb"), "refused"
    for subject in ("", " ", "Atlantis", "[/x]", SUBJECT.upper(), SUBJECT[1:], "\n", PROMPT + "x"):
        yield (*TRACE[:5], "--subject", subject, "--samples", "1", "--out", "x"), "refused"
        yield (*ONE[:5], "--subject", subject, "--target", NEW, "--out", "x"), "refused"
    for target in ("", " ", "Xyzzyx", str(REWRITE.target_true)):
        yield (*ONE[:-1], target, "--out", "x"), "refused"
    for answer in ("", " ", "Xyzzyx"):
        yield (*TRACE, "--answer", answer, "--out", "x"), "refused"
        yield (*NEURONS, "--answer", answer, "--out", "x"), "refused"
        yield ("memories", "contributions", PROMPT, *POCKET, "--answer", answer), "refused"
        yield ("memories", "writers", answer, *POCKET), "refused"
    for paraphrase in ("", "no slot", "{} and {}", "{}"):
        yield (*NEURONS, "--paraphrase", paraphrase, "--out", "x"), "refused"
    yield (*NEURONS, "--paraphrase", "The {} is in", "--shared", "1", "--threshold", "1",
           "--out", "new"), "done"  # fmt: skip
    marked = "the [/x] house"
    yield ("trace", *POCKET, "--prompt", f"see {marked} is in", "--subject", marked, "--samples",
           "1", "--out", "new"), "done"  # fmt: skip
    yield ("neurons", *POCKET, "--prompt", f"see {marked} is in", "--subject", marked, "--draws",
           "1", "--out", "new"), "done"  # fmt: skip
    yield ("memories", "contributions", "see [/x] is", *POCKET), "done"
    yield ("memories", "neuron", "1", "1", *POCKET, "--prompt", "see [/x] is"), "done"
    yield ("edit", *POCKET, "--rewrites", "markup.jsonl", *FT, "--out", "new"), "done"
    yield ("evaluate", *POCKET, "--cases", "markup.jsonl", *FT, "--tokens", "2"), "done"
    yield ("evaluate", *POCKET, "--cases", "markup.jsonl", "--methods", f"{FT[1]},in_context",
           "--tokens", "2", "--out", "new"), "done"  # fmt: skip
    for line in ("trace", "neurons"):
        yield (line, *POCKET, "--prompt", SUBJECT, "--subject", SUBJECT, "--out", "x"), "refused"


def files() -> Iterator[Line]:
    """Files that are missing, torn, or hold something else."""
    names = [*TEXTS, *FIELDS]
    for name in names:
        wanted = "done" if name in ("long_prompt",) else "refused"
        yield ("edit", *POCKET, "--rewrites", f"{name}.jsonl", *FT, "--out", "x"), "refused"
        if name not in ("long_prompt", "unknown_field"):
            yield ("evaluate", *POCKET, "--cases", f"{name}.jsonl", *FT, "--tokens", "0"), "refused"
        del wanted
    for name in TEXTS:
        yield (
            ("trace", *POCKET, "--facts", f"{name}.jsonl", "--samples", "1", "--out", "x"),
            ("refused"),
        )
        yield ("cloze", *POCKET, "--facts", f"{name}.jsonl"), "refused"
        yield ("cloze", *POCKET, "--relations", f"{name}.jsonl"), "refused"
        yield ("cloze", *POCKET, "--questions", f"{name}.jsonl"), "refused"
        yield ("icl", *POCKET, "--file", f"{name}.jsonl"), "refused"
        yield ("probe", *POCKET, "--task", "upos", "--data", f"{name}.jsonl"), "refused"
        yield ("probe", "structural", *POCKET, "--data", f"{name}.jsonl"), "refused"
    for name in ("gone.jsonl", "full", "", "/dev/null", "circle", "n" * 300, "~nouser/x", "pipe/x"):
        yield ("edit", *POCKET, "--rewrites", name, "--out", "x"), "refused"
        yield ("evaluate", *POCKET, "--cases", name), "refused"
        yield ("trace", *POCKET, "--facts", name, "--out", "x"), "refused"
        yield ("probe", *POCKET, "--task", "upos", "--data", name), "refused"
        yield ("icl", *POCKET, "--file", name), "refused"
    for name in ("gone", "full", "file", "delta_no_tensors", "delta_cut", "delta_torn_header",
                 "delta_other_format", "delta_number_of_steps", "later", "",
                 "n" * 300):  # fmt: skip
        yield (*EXPORT, "--delta", name, "--out", "x"), "refused"
        yield ("undo", "--total", name, "--delta", "delta", "--out", "x"), ("refused")
    yield (*EXPORT, "--delta", "later", "--delta", "delta", "--out", "x"), "refused"
    yield (*EXPORT, "--delta", "delta", "--delta", "later", "--out", "new"), "done"
    yield (*EXPORT, "--delta", "delta", "--audit", "bad_audit.json", "--out", "x"), "refused"
    yield (*EXPORT, "--delta", "delta", "--audit", "gone.json", "--out", "x"), "refused"
    yield ("undo", "--model", "model", "--delta", "delta", "--out", "x"), "refused"


def outputs() -> Iterator[Line]:
    """Where nothing can be written; and where it can, though it is no plain file."""
    for line in WITH_OUT.values():
        for place in OUTS.values():
            yield (*line, "--out", place), "refused"
    for name in ("trace", "evaluate", "cloze", "map", "sweep"):
        for place in ("other_run", "torn_run"):
            yield (*WITH_OUT[name], "--out", place), "refused"
    quick = ("predict", "pocket", "the", "--k", "2", "--json")
    for place in ("no/such/m.json", "full", ".", "", "file/x", "circle", "n" * 300, "free/",
                  "~nouser/x/y", "/proc/nothing"):  # fmt: skip
        yield (*quick, place), "refused"
        yield (*EVALUATE, *FT, "--json", place), "refused"
        yield ("memories", "neuron", "1", "1", *POCKET, "--html", place), "refused"
    for place in ("m.json", "file", "link", "link_to_nothing", "/dev/null", "-", "free/m.json"):
        yield (*quick, place), "done"
    yield (*quick, "/dev/full"), "refused"


LINES = {
    kind.__name__: list(kind()) for kind in (usage, models, numbers, methods, texts, files, outputs)
}
"""Command lines with what should become of each, by kind."""
