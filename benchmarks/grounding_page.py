"""Writes docs/grounding.md and its figures from benchmarks/results/grounding/ and the text in grounding_page.md.

python benchmarks/grounding_page.py            # write
python benchmarks/grounding_page.py --check    # exit 1 when the page is not what the results give

In that text {{name}} stands for the table of that name, and any other {{path}} for a single figure, such as
{{conditions/clean/methods/base/metrics/em/value:.1%}}.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reports

RESULTS = reports.RESULTS / "grounding"
DOCUMENT = Path(__file__).parents[1] / "docs" / "grounding.md"
TEXT = Path(__file__).with_name("grounding_page.md")
FIGURES = "figures"  # beside the document
_TITLES = {"noise": "noise, {:.0%}", "mask": "masked, {:.0%}", "resolution": "resolution, {:.0%}"}

Results = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    results = load(RESULTS)
    text = render(results)
    if parser.parse_args().check:
        stale = DOCUMENT.read_text(encoding="utf-8") != text
        sys.exit(f"{DOCUMENT} is stale: run benchmarks/grounding_page.py" if stale else 0)
    DOCUMENT.write_text(text, encoding="utf-8")
    from grounding_figures import draw

    draw(results, DOCUMENT.parent / FIGURES)


def load(folder: Path) -> Results:
    """Part → what it holds, and "measured" → part → where and when."""
    found: Results = {"measured": {}}
    for path in sorted(folder.glob("*.json")):
        fields = json.loads(path.read_text(encoding="utf-8"))
        name = path.stem
        found[name] = fields.pop(name)
        found["measured"][name] = fields
    found["totals"] = totals(found["conditions"])
    return found


def totals(conditions: dict[str, Any]) -> dict[str, int]:
    """What highlighting changed over all conditions."""
    changes = [one["methods"]["vea"]["comparison"] for one in conditions.values()]
    return {
        "rows": len(changes),
        "mended": sum(one["gained"] for one in changes),
        "spoiled": sum(one["lost"] for one in changes),
        "significant": sum(one["em_p"] < 0.05 for one in changes),
        "samples": sum(one["analysis"]["samples"] for one in conditions.values()),
        "below_half": sum(one["analysis"]["outcomes"]["auroc_below_half"]["n"] for one in conditions.values()),
    }


def render(results: Results) -> str:
    """The page: the text, with tables and figures put in."""

    def put(match: re.Match[str]) -> str:
        if match[1] in TABLES:
            return TABLES[match[1]](results)
        path, _, form = match[1].rpartition(":")  # conditions have colons in their names
        value: Any = results
        for key in path.split("/"):
            value = value[int(key) if isinstance(value, list) else key]
        return format(value, form)

    return re.sub(r"\{\{(.+?)\}\}", put, TEXT.read_text(encoding="utf-8"))


def title(condition: str) -> str:
    """`noise:0.3` → noise, 30%."""
    name, _, level = condition.partition(":")
    return _TITLES[name].format(float(level)) if level else condition


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _mean(figure: dict[str, Any]) -> str:
    return f"{100 * figure['value']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def _change(comparison: dict[str, Any]) -> str:
    p = comparison["em_p"]
    return f"+{comparison['gained']} −{comparison['lost']}, p {f'= {p:.3f}' if p >= 0.001 else '< 0.001'}"


def methods(results: Results) -> str:
    rows = []
    for name, found in results["conditions"].items():
        by_name = found["methods"]
        exact = [_mean(by_name[method]["metrics"]["em"]) for method in ("base", "inst", "vea")]
        f1 = [f"{100 * by_name[method]['metrics']['f1']['value']:.1f}" for method in ("base", "vea")]
        rows.append([title(name), *exact, _change(by_name["vea"]["comparison"]), " → ".join(f1)])
    return table(["pictures", "Base, EM", "Inst, EM", "Vea, EM", "Vea against Base", "F1, Base → Vea"], rows)


def ablations(results: Results) -> str:
    names = ["base", "vea", "no-denoise", "no-smooth", "no-profiling", "no-prompt"]
    rows = []
    for name, found in results["conditions"].items():
        if "no-smooth" in found["methods"]:
            figures = [found["methods"][method]["metrics"]["em"]["value"] for method in names]
            rows.append([title(name), *(f"{100 * value:.1f}" for value in figures)])
    return table(["pictures", *names], rows)


def attribution(results: Results) -> str:
    layers = results["conditions"]["clean"]["analysis"]["layers"]
    rows = []
    for name, found in results["conditions"].items():
        by_layer, judged = found["analysis"]["auroc_by_layer"], found["methods"]["vea"]["metrics"]
        rest = [f"{judged[metric]['value']:.3f}" for metric in ("auroc", "ndcg", "ap")]
        rows.append([title(name), *(f"{value:.3f}" for value in by_layer), *rest])
    head = ["pictures", *(f"layer {layer}" for layer in layers), "evidence, AUROC", "NDCG", "AP"]
    return table(head, rows)


def split(results: Results) -> str:
    rows = []
    for name, found in results["conditions"].items():
        counts = found["methods"]["base"]["split"]
        parts = [counts[part] for part in ("seen_right", "seen_wrong", "unseen_right", "unseen_wrong")]
        rows.append([title(name), *map(str, parts)])
    return table(["pictures", "seen, right", "seen, not believed", "not seen, right", "not seen, wrong"], rows)


def wrong(results: Results) -> str:
    rows = [[title(name), *map(str, found["wrong"].values())] for name, found in results["conditions"].items()]
    return table(["pictures", *results["conditions"]["clean"]["wrong"]], rows)


def rapt(results: Results) -> str:
    grounding = results["conditions"]["clean"]["analysis"]["grounding"][0]
    rows = []
    for name, found in results["conditions"].items():
        points = {(one["figure"], one["answers"]): one for one in found["curves"] if one["layer"] == grounding}
        row = [title(name)]
        for section in ("image", "text", "evidence", "non_evidence"):
            pair = [points.get((f"rapt_{section}", answers)) for answers in ("right", "wrong")]
            row.append(" / ".join("–" if one is None else f"{one['mean']:.2f}" for one in pair))
        rows.append(row)
    return table(["pictures", "image", "text", "evidence", "non-evidence"], rows)


def missed(results: Results) -> str:
    rows = []
    for name, found in results["conditions"].items():
        row = [title(name)]
        for place in ("on_evidence", "elsewhere"):
            outcome = found["analysis"]["outcomes"][f"top_patch_{place}"]
            row += [str(outcome["n"]), str(outcome["right"]), f"+{outcome['mended']} −{outcome['spoiled']}"]
        rows.append(row)
    head = [
        "pictures",
        "top patch on the evidence",
        "right",
        "Vea changed",
        "top patch elsewhere",
        "right",
        "Vea changed",
    ]
    return table(head, rows)


def profiles(results: Results) -> str:
    rows = []
    for name, found in results["profiles"].items():
        auroc = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in found["auroc"]]
        rows.append([name, ", ".join(map(str, found["layers"])), *auroc])
    layers = range(len(results["profiles"]["clean, seed 0"]["auroc"]))
    return table(["100 pictures", "chosen", *(f"layer {layer}" for layer in layers)], rows)


def stability(results: Results) -> str:
    counts = [one["n_samples"] for one in results["profiles"]["clean, seed 0"]["stability"]]
    rows = [
        [name, *(f"{one['same']:.1%}" for one in found["stability"])] for name, found in results["profiles"].items()
    ]
    return table(["pictures", *(f"{count} samples" for count in counts)], rows)


def sinks(results: Results) -> str:
    rows = []
    for name in ("clean, seed 0", "noise:0.6, seed 0", "mask:0.3, seed 0"):
        found = results["profiles"][name]["sinks"]
        evidence = results["profiles"][name]["sinks_on_evidence"]
        for valid, replicate, on_evidence in zip(found["valid"], found["replicate"], evidence, strict=True):
            shares = (on_evidence, valid["edge"], valid["corner"])
            place = ["–" if share is None else f"{share:.0%}" for share in shares]
            counts = [f"{one['count']:.2f} ({one['removed']:.2%})" for one in (valid, replicate)]
            rows.append([name, str(valid["layer"]), counts[0], *place, counts[1]])
    head = ["pictures", "layer", "sinks per picture, border `valid` (attention removed)", "on the evidence"]
    return table([*head, "on an edge", "in a corner", "the same, border `replicate`"], rows)


def why(results: Results) -> str:
    found = results["why"]
    names = list(next(iter(found.values())))
    rows = []
    for name in names:
        row = [name]
        for variants in found.values():
            one = variants[name]
            changed = "" if name == "inst" else f" (+{one['gained']} −{one['lost']})"
            row.append(f"{100 * one['em']:.1f}{changed}")
        rows.append(row)
    return table(["shown", *(f"{title(condition)}, EM" for condition in found)], rows)


def light(results: Results) -> str:
    found = results["light"]
    rows = []
    for name in next(iter(found.values())):
        shown = [variants[name] for variants in found.values()]
        rows.append([name, *(f"{one['auroc']:.3f}, {one['hits']}" for one in shown)])
    return table(["shown", *(f"{title(condition)}: AUROC, hits" for condition in found)], rows)


def places(results: Results) -> str:
    lines = []
    for name, one in results["measured"].items():
        e = one["environment"]
        versions = f"torch {e['torch']}, transformers {e['transformers']}, vea_sdk {e['vea_sdk']} at {e['commit']}"
        machine = f"{e['device']}, {e['threads']} thread(s)"
        took = "in more than one go" if one["seconds"] is None else f"{one['seconds']} s"
        lines.append(f"- {name}: {one['samples']} samples, {took} on {machine}; {versions}, {e['date']}.")
    return "\n".join(lines)


TABLES: dict[str, Callable[[Results], str]] = {
    function.__name__: function
    for function in (
        methods,
        ablations,
        attribution,
        split,
        wrong,
        rapt,
        missed,
        profiles,
        stability,
        sinks,
        why,
        light,
        places,
    )
}


if __name__ == "__main__":
    main()
