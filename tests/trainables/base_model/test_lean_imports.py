"""A host's imports: what is left out stays out until it is called, and nothing computes otherwise without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT, SHARED

MODEL = SHARED / "models" / "stories15M"
UNUSED = ("scipy", "sklearn", "pandas", "triton")  # triton, by bitsandbytes: 80 MiB of each host's memory
LEFT_OUT = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", *UNUSED)

# Imports as a host does, or in full; prints what a gradient is, what an engine's trials learn, and what was imported.
PROBE = """
import json, resource, sys

def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

how, model, *precisions = sys.argv[1:]
if how == "lean":
    from trainables.base_model import lean_imports
    lean_imports.import_libraries()
    lean_imports.import_quantization()
else:
    import bitsandbytes, transformers.models.llama.modeling_llama
import trainables.base_model.load, trainables.dataset.prepared, trainables.engine.engine
imported, after = seconds(), sorted(sys.modules)
import torch
from transformers import masking_utils
from trainables.base_model.load import load_base_model
from trainables.settings import BaseModelSettings

totals = []
for precision in precisions:
    base = load_base_model(BaseModelSettings(model), precision, "cpu")
    ids = torch.randint(3, 500, (2, 24), generator=torch.Generator().manual_seed(0))
    logits = base.model(ids).logits
    inputs = base.model.get_input_embeddings()(ids).detach().requires_grad_(True)
    base.model.train()(inputs_embeds=inputs, labels=ids).loss.backward()
    totals += [logits.double().sum().item(), inputs.grad.double().abs().sum().item()]
from tests.support import small_engines
engine = small_engines.make_engine()
small_engines.join(engine, small_engines.MIXED)
learned = small_engines.perplexities(small_engines.run(engine))
trained = sorted(sys.modules)
tracing = type(masking_utils.TransformGetItemToIndex()).__module__
told = {"seconds": imported, "after": after, "trained": trained, "totals": totals, "learned": learned}
print(json.dumps({**told, "tracing": tracing}))
"""


def _probe(how: str, cache: Path) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", PROBE, how, str(MODEL), "nf4", "fp32"]
    environment = {**os.environ, "LORA_FRONTIER_CACHE": str(cache)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.skipif(not MODEL.is_dir(), reason="needs the models beside the checkout (../shared/models)")
def test_lean_imports_leave_out_what_takes_half_the_time_and_change_no_number(tmp_path: Path) -> None:
    full, lean = (_probe(how, tmp_path) for how in ("full", "lean"))  # the second finds quantized weights
    assert [name for name in LEFT_OUT if name in lean["after"]] == []
    assert [name for name in LEFT_OUT if name in lean["trained"] and name != "scipy"] == []
    assert lean["learned"] == full["learned"]
    assert lean["totals"] == full["totals"]  # bit-equal, in one thread or many of the same machine
    assert lean["tracing"] == full["tracing"] == "torch._dynamo._trace_wrapped_higher_order_op"
    assert lean["seconds"] < 0.75 * full["seconds"]  # processor time; half of it, as measured


# Lets transformers' masks fail to import as long as torch's compiler is left out.
BROKEN = """
import sys
from trainables.base_model import lean_imports
lean_imports.COMPILER = ("torch.nn.attention.flex_attention",)  # whose names do not stand in for a class
lean_imports.import_libraries()
import torch
import transformers.models.llama.modeling_llama as llama
print(llama.LlamaForCausalLM.__name__, torch.compile.__module__, torch.distributed.is_available())
"""


def test_where_lean_imports_fail_those_in_full_follow() -> None:
    command = [sys.executable, "-W", "ignore", "-c", BROKEN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == ["LlamaForCausalLM", "torch", "True"], done.stderr
