"""The exported checkpoint, opened by plain transformers in a process of its own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from labkit.errors import OutputError, SelfCheckFailed
from labkit.models.model import LabModel

TOLERANCE = 1e-5
"""Largest difference of logits allowed between the lab and the reloaded checkpoint."""


RELOAD = """
import json, sys
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()
folder, ids, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
model = AutoModelForCausalLM.from_pretrained(
    folder, dtype="auto", trust_remote_code=False
).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
with torch.no_grad():
    logits = model(torch.tensor([ids])).logits[0, -1].float()
save_file({"logits": logits}, out)
print(json.dumps({"says": tokenizer.decode([int(logits.argmax())])}))
"""
"""Run in a process of its own, with plain transformers: nothing of the lab is imported."""


ISOLATED = ("-P",)
"""How it is started: a file of the working folder named like a module is not run instead."""


@dataclass(frozen=True, kw_only=True)
class Reload:
    """What a separate process found in the exported checkpoint.

    Attributes:
        says: The most probable next token.
        largest_difference: Of its logits from those of the edited model in the lab.
        changed: Names of the weights that differ from the base.
    """

    says: str
    largest_difference: float
    changed: tuple[str, ...]


def reloaded(model: LabModel, checkpoint: Path, prompt: str, edited_logits: torch.Tensor) -> Reload:
    """Open an exported checkpoint with plain transformers in a separate process.

    Args:
        model: The unedited base.
        checkpoint: The exported folder.
        prompt: The prompt to compare at.
        edited_logits: What the edited model in the lab answers, `[vocab]`.

    Raises:
        SelfCheckFailed: If it cannot be opened, or answers something else.
    """
    out = checkpoint.parent / "reloaded.safetensors"
    command = [sys.executable, *ISOLATED, "-c", RELOAD]
    command += [str(checkpoint), json.dumps(model.ids(prompt))]
    done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SelfCheckFailed(f"{checkpoint} does not open in transformers:\n{done.stderr[-2000:]}")
    try:
        with safe_open(out, framework="pt") as file:
            logits = file.get_tensor("logits")
    finally:
        out.unlink(missing_ok=True)
    gap = float((logits - edited_logits).abs().max())
    if not gap <= TOLERANCE * max(1.0, float(edited_logits.abs().max())):
        raise SelfCheckFailed(f"the reloaded checkpoint's logits are off by {gap:.2e}")
    says = json.loads(done.stdout.strip().splitlines()[-1])["says"]
    return Reload(says=says, largest_difference=gap, changed=changed_weights(model, checkpoint))


def changed_weights(model: LabModel, checkpoint: Path) -> tuple[str, ...]:
    """Names of the weights in which a checkpoint differs from a model, bit for bit."""
    own = model.hf.state_dict()
    changed = []
    for file_path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file_path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if not torch.equal(file.get_tensor(name), own[name].cpu()):
                    changed.append(name)
    if not list(checkpoint.glob("*.safetensors")):
        raise OutputError(f"{checkpoint} holds no weights")
    return tuple(changed)
