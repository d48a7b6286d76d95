"""Train the embedded model: first the vision tower learns to read, then the whole model to answer.

    python -m training.data CACHE --count 60
    torchrun --nproc-per-node 2 -m training.train CACHE RUN --reading-minutes 12 --answering-minutes 60

Every process computes in one thread on its own pictures and gradients are averaged: two processes on two cores share
no barrier within a layer, which suits a machine that does other work as well.

glibc hands freed memory back at once, and fetching it again can cost more than the arithmetic. Keep it, by setting
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=1073741824 before the command.

Steps follow the clock: the learning rate is constant, then falls to zero over the last part of each stage.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT

from . import build
from .data import ALPHABET, FIELDS, MAX_LENGTH, Cache, Question, patches, pixels, questions, reading_targets, shift
from .muon import Muon
from .packing import answer_logits, image_features, pack

CHARACTERS, ORDERS, LABELS = len(ALPHABET), MAX_LENGTH + 1, len(FIELDS) + 1


LOOKING_LAYER = 2


def looking_loss(attention: torch.Tensor, asked: list[list[Question]]) -> torch.Tensor:
    """−mean log ā[i] over the patches i of the answer's box, averaged over the questions that have one.

    ``attention`` is ā [B, blocks, 196], the head-averaged attention of the last prompt token in one layer.
    """
    losses = [
        -attention[i, j][torch.from_numpy(patches(box).ravel())].clamp_min(1e-6).log().mean()
        for i, each in enumerate(asked)
        for j, (_, _, box) in enumerate(each)
        if box is not None
    ]
    return torch.stack(losses).mean()


class Reader(nn.Module):
    """The auxiliary head, thrown away after training: what stands in each patch, from its projected feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, 2 * CHARACTERS + 2 * ORDERS + LABELS)

    def forward(self, features: torch.Tensor, targets: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, list[float]]:
        """Cross-entropy of characters, their order and the entry's label; and accuracy where something stands."""
        characters, orders, labels = self.out(features).split([2 * CHARACTERS, 2 * ORDERS, LABELS], -1)
        parts = (characters.unflatten(-1, (2, -1)), orders.unflatten(-1, (2, -1)), labels)
        loss, accuracy = features.new_zeros(()), []
        for logits, target in zip(parts, targets, strict=True):
            flat, want = logits.flatten(0, -2), target.flatten()
            there = want > 0
            losses = functional.cross_entropy(flat, want, reduction="none")
            loss = loss + losses[there].mean() + losses[~there].mean()
            accuracy.append((flat.argmax(-1) == want)[there].float().mean().item())
        return loss, accuracy


def optimisers(modules: list[nn.Module], muon: float, adam: float) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices; AdamW for embeddings, convolution, heads, biases and norms."""
    named = [(n, p) for module in modules for n, p in module.named_parameters()]
    hidden = [p for n, p in named if p.ndim == 2 and "embed" not in n and n != "out.weight"]
    ids = {id(p) for p in hidden}
    rest = list({id(p): p for _, p in named if id(p) not in ids}.values())
    return [Muon(hidden, lr=muon), torch.optim.AdamW(rest, lr=adam, betas=(0.9, 0.98), weight_decay=0.0)]


def factor(step: int, progress: float, decay_from: float = 0.5) -> float:
    """Warm-up, plateau, linear descent; the last two by elapsed time."""
    return min(1.0, (step + 1) / 50) * min(1.0, max(0.0, (1 - progress) / (1 - decay_from)))


def descend(loss: torch.Tensor, steps: list[torch.optim.Optimizer], rates: list[float], at: float) -> None:
    """One update of all optimisers at a fraction of their learning rates, from the mean gradient of all processes."""
    loss.backward()
    groups = [group for optimiser in steps for group in optimiser.param_groups]
    grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    for grad, mean in zip(grads, (flat / dist.get_world_size()).split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))
    for optimiser, rate in zip(steps, rates, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate * at
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def clock(start: float, minutes: float) -> float:
    """Elapsed share of a stage, as the first process sees it, so that all processes stop together."""
    progress = torch.tensor((time.time() - start) / (60 * minutes))
    dist.broadcast(progress, 0)
    return progress.item()


class Trainer:
    """The model under training, its data and its clock."""

    def __init__(self, cache: Path, run: Path) -> None:
        torch.manual_seed(0)
        rank = dist.get_rank()
        self.rng, self.words, self.first = np.random.default_rng(rank), Random(rank), rank == 0
        self.cache, self.run = Cache(cache, rank, dist.get_world_size()), run
        self.run.mkdir(parents=True, exist_ok=True)
        self.processor = build.processor()
        self.tokens = self.processor.tokenizer
        self.model = build.model(self.tokens)
        self.reader = Reader(self.model.config.text_config.hidden_size)
        self.assistant, self.user = (self.tokens.convert_tokens_to_ids(t) for t in (build.ASSISTANT, build.USER))

    def save(self, name: str) -> None:
        if not self.first:
            return
        torch.save({"model": self.model.state_dict(), "reader": self.reader.state_dict()}, self.run / f"{name}.pt")
        self.model.save_pretrained(self.run / name)
        self.processor.save_pretrained(self.run / name)

    def load(self, name: str) -> None:
        state = torch.load(self.run / f"{name}.pt")
        self.model.load_state_dict(state["model"])
        self.reader.load_state_dict(state["reader"])

    def batch(self, size: int, strength: float, highlight: bool = False) -> tuple[dict[str, np.ndarray], torch.Tensor]:
        batch = self.cache.sample(size, self.rng)
        shift(batch, self.rng)
        return batch, pixels(batch, self.rng, strength, highlight)

    def sight(self) -> list[nn.Module]:
        return [self.model.model.vision_tower, self.model.model.multi_modal_projector, self.reader]

    def read(self, minutes: float, size: int = 16) -> None:
        """Stage 1: vision tower and projector, under the auxiliary head alone."""
        steps, rates = optimisers(self.sight(), 0.02, 2e-3), [0.02, 2e-3]
        start, step = time.time(), 0
        while (progress := clock(start, minutes)) < 1:
            if step % 100 == 0:
                known = self.cache.refresh()
            batch, x = self.batch(size, min(1.0, 2 * progress))
            loss, accuracy = self.reader(image_features(self.model, x), reading_targets(batch))
            descend(loss, steps, rates, factor(step, progress))
            if step % 20 == 0 and self.first:
                shown = " ".join(f"{a:.3f}" for a in accuracy)
                passed = time.time() - start
                print(f"read {step} {passed:.0f}s loss {loss.item():.3f} accuracy {shown} of {known}", flush=True)
            step += 1
        self.save("read")

    def answer(self, minutes: float, size: int = 16, strength: float = 1.0, decay_from: float = 0.5) -> None:
        """Stage 2: the whole model on packed questions, the auxiliary loss kept at a small weight."""
        steps = optimisers(self.sight(), 0.01, 1e-3) + optimisers([self.model.model.language_model], 0.02, 2e-3)
        rates = [0.01, 1e-3, 0.02, 2e-3]
        start, step, saved = time.time(), 0, time.time()
        while (progress := clock(start, minutes)) < 1:
            if step % 100 == 0:
                known = self.cache.refresh()
            highlight = self.words.random() < 0.4
            batch, x = self.batch(size, strength, highlight)
            features = image_features(self.model, x)
            aid, accuracy = self.reader(features, reading_targets(batch))
            asked = [each[:6] for each in questions(batch, self.words, 0.5)]
            prompt = HIGHLIGHT_PROMPT if highlight else PLAIN_PROMPT
            blocks = pack(asked, prompt, self.tokens, self.assistant)
            logits, targets, looking = answer_logits(self.model, features, blocks, self.user)
            loss = functional.cross_entropy(logits, targets)
            look = looking_loss(looking[LOOKING_LAYER], asked)
            descend(loss + 0.2 * aid + 0.1 * look, steps, rates, factor(step, progress, decay_from))
            if step % 20 == 0 and self.first:
                right = (logits.argmax(-1) == targets).float()
                ends = (targets == self.tokens.eos_token_id).nonzero().flatten() + 1
                exact = torch.stack([r.min() for r in right.tensor_split(ends[:-1])]).mean()
                shown = " ".join(f"{a:.3f}" for a in accuracy)
                print(
                    f"answer {step} {time.time() - start:.0f}s loss {loss.item():.3f} look {look.item():.3f} "
                    f"token {right.mean():.3f} exact {exact:.3f} read {shown} of {known}",
                    flush=True,
                )
            if time.time() - saved > 300:
                self.save("latest")
                saved = time.time()
            step += 1
        self.save("final")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--reading-minutes", type=float, default=12)
    parser.add_argument("--answering-minutes", type=float, default=60)
    parser.add_argument("--strength", type=float, default=1.0, help="how often answering pictures are degraded")
    parser.add_argument("--decay-from", type=float, default=0.5, help="share of answering before the rate falls")
    parser.add_argument("--resume", help="load this state (read, latest) of the run first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    trainer = Trainer(options.cache, options.run)
    if options.resume:
        trainer.load(options.resume)
    if options.reading_minutes:
        trainer.read(options.reading_minutes)
    if options.answering_minutes:
        trainer.answer(options.answering_minutes, strength=options.strength, decay_from=options.decay_from)
