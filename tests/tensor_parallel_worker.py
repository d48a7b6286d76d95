"""One of two processes that share a model's heads, started by ``torchrun --nproc_per_node 2`` with a FOLDER.

FOLDER holds a checkpoint and the inputs; each process writes the rows it captured there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.distributed import DistributedConfig

import vea_sdk as vea

TOP_K = 5


def run(model: Any, inputs: Any, layers: Any = "all") -> dict[str, Any]:
    with vea.capture(model, layers=layers, queries="all", top_k=TOP_K) as session:
        model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    return {"attention": session.attention, "topk": session.topk, **vars(session.stats)}


def main(folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(
        folder, distributed_config=DistributedConfig(tp_size=2), dtype=torch.float32
    ).eval()
    heads = []
    attention = model.get_decoder().layers[0].self_attn
    attention.q_proj.register_forward_hook(lambda module, args, output: heads.append(output.shape[-1]))
    found = run(model, torch.load(folder / "inputs.pt", weights_only=True))
    found["query_width"] = heads[0]
    torch.save(found, folder / f"rows{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
