"""What the names in the output of each command mean, for the end of its help."""

from __future__ import annotations

from vea_sdk.monitor.statistics import STATISTICS

FIELDS = {
    "question": "what was asked",
    "expected": "the right answer",
    "prompt": "the text that was sent at last, the question inside",
    "baseline": "the first answer, to the picture as it is",
    "answer": "the answer that is kept",
    "certainty": "of that answer: the product of its tokens' probabilities",
    "finished": "whether the answer came to its end before --max-new-tokens",
    "mode": "how it was asked",
    "reason": "why this answer is the one",
    "cost": "passes of the model: looks up to the deepest layer that is read, and answers",
    "candidates": "what was answered, with certainty and the share of the attention on it",
    "window": "the part of the picture that the answer is from: corners in pixels",
    "windows": "the picture with the windows: looked at (white), answered (orange), taken (green)",
    "layers": "the layers that were read",
    "grid": "rows and columns of patches",
    "auroc": "how well the attention tells the patches of the evidence from the others; 0.5 is chance, 1 perfect",
    "image_mass": "share of the attention that lies on the picture",
    "point": "where the model looked most: x, y in pixels",
    "boxes": "where it looked: corners in pixels, and the share of the attention inside, the highest first",
    "top_patches": "the patches with the highest attention: corners in pixels",
    "words": "each word of the answer, its certainty, and the first box of its own look",
    "overlay": "the picture with the look drawn over it",
    "highlighted": "the picture that was shown for the second question",
    "together": "picture, overlay and highlighted picture in one",
    "timings": "seconds per stage",
    "files": "what was written",
    "samples": "how many there were",
}
"""Names that several commands print."""


def explained(*names: str, **others: str) -> str:
    """The end of a command's help: the names in its output, and ``others`` that are its own."""
    meanings = {name: FIELDS[name] for name in names} | others
    return "\n\n".join(["Output:", *(f"{name}: {meaning}." for name, meaning in meanings.items())])


_SHOWN = ("layers", "point", "boxes", "overlay", "highlighted")
OUTPUT = {
    "demo": explained("question", "expected", "baseline", "answer", "certainty", "reason", "window", "candidates",
                    "cost", "layers", "auroc", "overlay", "highlighted", "windows", "together", "timings",
                    gain="how often that helps pages that are small in their picture",
                    control="the same without the model's attention",
                    harm="what it does to pages that fill their picture"),
    "ask": explained("question", "prompt", "baseline", "answer", "certainty", "finished", "mode", "reason", "cost",
                   "candidates", "window", "windows", *_SHOWN, "words", "timings"),
    "attend": explained("question", "grid", *_SHOWN, "top_patches"),
    "profile": explained(
        model="the checkpoint",
        layers="those that were chosen",
        auroc="how well a chosen layer tells the patches of the evidence from the others, the mean over them",
        auroc_all_layers="the same over all layers",
        chosen_share="of each chosen layer: the share of the resamples that choose it, too",
        n_samples="pictures that were measured",
        skipped="pictures that could not be, and why",
        files="what was written: samples.jsonl goes on where a run was interrupted, profile.json is the profile",
        timings="seconds per stage",
    ),
    "eval": explained(
        **{
            "EM, F1, ANLS, VQA accuracy": "of the answers, in percent, with 95% bootstrap intervals",
            "AUROC, NDCG, AP": "how well the scores rank the patches of the evidence",
            "pointing game": "how often the highest patch is one of the evidence",
            "point in a box": "how often the look's point lies in a box of the evidence",
            "IoU": "overlap of the look's first box with the best box of the evidence",
            "gained, lost": "answers that became right and wrong against the first method",
            "certainty": "how well it tells right answers from wrong ones (AUROC), how far it is from the share that "
            "is right (ECE), what share is wrong of all answers and of the surest 80 and 50% (risk)",
            "p (EM), p (F1)": "of that difference, by McNemar's exact test and by a paired bootstrap",
            "seen": "AUROC of at least --seen-threshold; believed: the answer is right",
            "calibration": "the threshold found, the share of base's answers it keeps, what share of these is right",
            "resumed": "samples that an earlier run had done",
        },
        files="what was written; results.jsonl goes on where a run was interrupted",
    ),
    "analyze": explained(
        "samples",
        without_evidence="samples whose boxes cover no patch, or all",
        layers="of the model, all",
        grounding="the layers that answer for it (--layers)",
        auroc="of the grounding layers' mean, averaged over the samples",
        auroc_by_layer="the same of each layer",
        below_half="share of the samples whose AUROC is below 0.5",
        outcomes="answers that were right, at first and about the highlighted picture, by where attention lay",
        files="what was written",
    ),
    "doctor": explained(
        native="whether the compiled kernels are in use; path: their file",
        cuda="whether those for GPUs are; cuda_archs: what they were built for",
        cpu_path="the instructions that the CPU's kernels use here",
        reasons="why not all is in use",
        architectures="those with an adapter of their own; --families shows all that were tested",
    ),
    "bench": explained(
        **{"P1 to P5": "the target a figure belongs to", "≤ and ≥": "its limit", "held, MISSED": "whether it holds"}
    ),
    "watch": explained(
        **{one.title: one.help.rstrip(".") for one in STATISTICS},
        **{"p1, p50, p99": "quantiles of the last --window values"},
        PSI="how far they drifted from those before (population stability index)",
        alerts="statistics that left their limits, firing or resolved",
    ),
}  # fmt: skip
"""By command."""
