"""Folders of strangers: one thing wrong, one line that says so, and nothing of theirs is run."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from labkit.errors import ForeignCode, InputError, LabkitError, MalformedModel, SelfCheckFailed
from labkit.models.loading import load
from labkit.models.random_models import random_model

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("sound")
    hf, tokenizer = random_model("llama")
    hf.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "stranger"))


def config(**values):
    """Change fields of the configuration; None takes a field away."""

    def change(folder):
        path = folder / "config.json"
        found = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))

    return change


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def weights(change):
    def changed(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return changed


def in_two_files(change):
    """Weights in two files, with an index to which something is done."""

    def changed(folder):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        placed = {name: "ab"[i % 2] + ".safetensors" for i, name in enumerate(tensors)}
        for file in "a.safetensors", "b.safetensors":
            part = {name: tensors[name] for name in tensors if placed[name] == file}
            save_file(part, folder / file, metadata={"format": "pt"})
        change(placed)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": placed})
        )

    return changed


def header(change):
    """The header of the weights with a lie in it, of the right length."""

    def changed(folder):
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        found = json.loads(raw[8 : 8 + length])
        change(found)
        new = json.dumps(found).encode()
        path.write_bytes(len(new).to_bytes(8, "little") + new + raw[8 + length :])

    return changed


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def no_vocabulary(folder):
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    found["model"] |= {"vocab": {}, "merges": []}
    found["added_tokens"] = []
    path.write_text(json.dumps(found))


def fill(name, value):
    return weights(lambda tensors: tensors[name].view(-1)[-1:].fill_(value))


def retyped(dtype):
    return weights(lambda tensors: tensors.update({UP: tensors[UP].to(dtype)}))


def more(name, *shape):
    return weights(lambda tensors: tensors.update({name: torch.ones(shape)}))


WRONG = {
    # the configuration
    "null": (write("config.json", b"null"), "no JSON object but null"),
    "a list": (write("config.json", b"[]"), "no JSON object"),
    "no JSON": (write("config.json", b"{"), "is no JSON"),
    "not UTF-8": (write("config.json", b"\xff\xfe{}"), "is no JSON"),
    "not a number": (
        lambda f: (f / "config.json").write_text('{"rms_norm_eps": NaN}'),
        "NaN is no number",
    ),
    "no architecture": (config(model_type=None), "names no architecture"),
    "unknown architecture": (config(model_type="nonsuch"), "'nonsuch', which the installed"),
    "not a language model": (config(model_type="vit"), "vit, which is no causal language model"),
    "no heads": (config(num_attention_heads=None), "does not say the number of heads"),
    "no heads at all": (config(num_attention_heads=0), "num_attention_heads 0"),
    "no blocks": (config(num_hidden_layers=0), "num_hidden_layers 0"),
    "negative blocks": (config(num_hidden_layers=-3), "num_hidden_layers -3"),
    "a fraction": (config(num_hidden_layers=2.5), "num_hidden_layers 2.5"),
    "true for a number": (config(hidden_size=True), "hidden_size True"),
    "a width in words": (config(hidden_size="wide"), "hidden_size 'wide'"),
    "a list of heads": (config(num_key_value_heads=[2]), r"num_key_value_heads \[2\]"),
    "a huge vocabulary": (config(vocab_size=10**12), "vocab_size 1000000000000"),
    "a large vocabulary": (config(vocab_size=10**9), "has the shape"),
    "heads that do not divide": (
        config(num_attention_heads=5, head_dim=None),
        "multiple of the number",
    ),
    "groups that do not divide": (config(num_key_value_heads=3), "3 key-value heads among 4"),
    "other heads": (config(num_key_value_heads=4), r"k_proj.weight has the shape \[16, 32\]"),
    "activation": (config(hidden_act="nonsuch"), "unknown activation: hidden_act is 'nonsuch'"),
    "rope": (config(rope_parameters={"rope_type": "nonsuch"}), "rotary embedding.*'nonsuch'"),
    "rope without factor": (config(rope_parameters={"rope_type": "linear"}), "factor"),
    "rope that divides by zero": (
        config(rope_parameters={"rope_type": "linear", "factor": 0, "rope_theta": 1e4}),
        "factor 0",
    ),
    "rope in words": (config(rope_scaling="yes"), "rope_scaling 'yes'"),
    "norm": (config(rms_norm_eps="small"), "rms_norm_eps 'small'"),
    "number format": (config(dtype="float7"), "dtype 'float7'; one of float64"),
    "number format, older": (config(dtype=None, torch_dtype=32), "torch_dtype 32"),
    "quantised": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "quantised"),
    "quantised somehow": (config(quantization_config={"quant_method": "x1"}), "quantised.*x1"),
    "quantised by a word": (config(quantization_config="yes"), "quantised"),
    "flash attention": (config(attn_implementation="flash_attention_2"), "kernels of its own"),
    "a hub's kernels": (config(_attn_implementation="someone/kernels"), "kernels of its own"),
    "10,000 blocks": (config(num_hidden_layers=10_000), "10000 blocks, the weights have 3"),
    "fewer blocks": (config(num_hidden_layers=2), "2 blocks, the weights have 3"),
    "more blocks": (config(num_hidden_layers=4), "4 blocks, the weights have 3"),
    "a wider model": (config(hidden_size=64), "has the shape"),
    "pad beyond the vocabulary": (config(pad_token_id=9999), "cannot be opened|can open"),
    "an adapter beside it": (write("adapter_config.json", b"{}"), "holds an adapter"),
    # the weights
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "a pickle": (pickled, "as a pickle only"),
    "text for weights": (write("model.safetensors", b"hello, I am text"), "damaged or no file"),
    "nothing for weights": (write("model.safetensors", b""), "damaged or no file"),
    "a header longer than the file": (write("model.safetensors", b"\xff" * 64), "damaged"),
    "a header with other offsets": (
        header(lambda found: found[UP].update(data_offsets=[0, 10**12])),
        "damaged",
    ),
    "a header with another shape": (
        header(lambda found: found[UP].update(shape=[32, 64])),
        r"up_proj.weight has the shape \[32, 64\] in model.safetensors and \[64, 32\]",
    ),
    "a header with an unknown format": (
        header(lambda found: found[UP].update(dtype="F33")),
        "damaged",
    ),
    "an index to a file that is not there": (
        in_two_files(lambda placed: placed.update({UP: "c.safetensors"})),
        "'c.safetensors', which is not there",
    ),
    "an index that leads out": (
        in_two_files(lambda placed: placed.update({UP: "../../c.safetensors"})),
        "no file beside it",
    ),
    "an index that lies": (
        in_two_files(lambda placed: placed.update(nonsuch="a.safetensors")),
        "nonsuch is in a.safetensors, which is not so",
    ),
    "an index of nothing": (in_two_files(dict.clear), "no weight_map"),
    "a weight too few": (weights(lambda tensors: tensors.pop(UP)), f"lacks 1 weights.*{UP}"),
    "a weight too many": (more("model.extra.weight", 4), "no place in the model.*extra"),
    "a bias too many": (more("model.layers.1.mlp.up_proj.bias", 64), "no place in the model"),
    "not a number in the embedding": (
        fill("model.embed_tokens.weight", torch.nan),
        "model.embed_tokens.weight holds values that are not finite",
    ),
    "infinity": (fill(UP, torch.inf), f"{UP} holds values that are not finite"),
    "integers": (retyped(torch.int8), "stored as I8"),
    "truth values": (retyped(torch.bool), "stored as BOOL"),
    "eight bits": (retyped(torch.float8_e4m3fn), "stored as F8_E4M3"),
    # the tokenizer
    "no tokenizer": (
        lambda f: [path.unlink() for path in f.glob("*token*")],
        "tokenizer",
    ),
    "an empty tokenizer": (write("tokenizer.json", b""), "holds no model that transformers"),
    "a tokenizer of nothing": (write("tokenizer.json", b"{}"), "holds no model that transformers"),
    "a tokenizer without a vocabulary": (no_vocabulary, "tokenizer"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_one_line_says_what_is_wrong(folder, kind, recwarn):
    change, said = WRONG[kind]
    change(folder)
    with pytest.raises((MalformedModel, SelfCheckFailed), match=said) as caught:
        load(str(folder))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    assert isinstance(caught.value, SelfCheckFailed) or str(folder) in message
    assert "trust_remote_code" not in message


def test_a_sound_folder_opens_whole_and_in_parts(folder):
    assert load(str(folder)).n_layers == 3
    in_two_files(lambda placed: None)(folder)
    assert load(str(folder)).n_layers == 3


def test_masks_that_older_versions_wrote_are_no_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    tensors["model.layers.0.self_attn.bias"] = torch.ones(4, 4, dtype=torch.bool)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(str(folder), check=False).n_layers == 3


# --- nothing of a stranger's is run -------------------------------------------------------------

CODE = "open({mark!r}, 'w').write('was here')\nclass C: pass\n"


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "mark"


@pytest.mark.parametrize("model_type", ["llama", "nonsuch", None])
@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_code_that_a_folder_brings_along_is_not_run(folder, mark, monkeypatch, where, model_type):
    """Nor is anybody asked: a question on standard input would be answered here with a yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (folder / "code.py").write_text(CODE.format(mark=str(mark)))
    names = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    auto = {name: ["code.C", "code.C"] if name == "AutoTokenizer" else "code.C" for name in names}
    path = folder / where
    found = json.loads(path.read_text()) | {"auto_map": auto}
    if where == "config.json":
        found["model_type"] = model_type
    else:
        found["tokenizer_class"] = "C"
        config(model_type=model_type or "nonsuch")(folder)
    path.write_text(json.dumps(found))
    try:
        load(str(folder))
    except LabkitError as error:
        assert "trust_remote_code" not in str(error)
        if where == "config.json" and model_type == "nonsuch":
            assert isinstance(error, ForeignCode) and "never does" in str(error)
    else:
        assert model_type == "llama", "transformers' own classes open this one"
    assert not mark.exists()


STDLIB = ("random.py", "json.py", "jupyterlab.py", "torch.py", "ipykernel_launcher.py")


def test_files_of_the_working_folder_are_not_run(tmp_path, mark, monkeypatch, pocket):
    """Neither by the demo's second process nor by what `labkit lab` starts."""
    from labkit.cli.lab import lab_command
    from labkit.demo.checkpoint import ISOLATED

    for name in STDLIB:
        (tmp_path / name).write_text(CODE.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    reload = [sys.executable, *ISOLATED, "-c", "import random, json, torch"]
    arguments, environment = lab_command(Path("notebooks"))
    version = [*arguments[: arguments.index("jupyterlab") + 1], "--version"]
    for command, variables in ((reload, None), (version, environment)):
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == 0, done.stderr
        assert not mark.exists()
    assert environment["PYTHONSAFEPATH"] == "1", "for the kernels"


# --- devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "device", ["hpu", "meta", "mps", "xla", "cuda:99", "hip", "abacus", "", "privateuseone", "a\nb"]
)
def test_a_device_that_is_not_there(device):
    with pytest.raises(InputError, match="there is cpu") as caught:
        load("random-gpt2", device=device)
    assert "\n" not in str(caught.value)


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "~nouser/x", "a\0b", "[/red]", "\ud800"])
def test_a_name_that_no_file_system_takes(name):
    with pytest.raises(LabkitError, match="Registered: ") as caught:
        load(name)
    assert len(str(caught.value)) < 800


def test_a_name_with_markup_in_it(labkit, tmp_path):
    status, _, err = labkit("predict", "[/red]", "the")
    assert status == 1 and "[/red]" in err, err
