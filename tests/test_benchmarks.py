"""Measuring itself: ratios, rows, the generated document, the short command, and what the GPU scripts build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vea_sdk import ops
from vea_sdk.benchmark import Row, Spread, alternate, load, quick, ratios, row, save, timer
from vea_sdk.benchmark.kernels import Problem, Shape
from vea_sdk.benchmark.models import Decoder, Steps, generate, prompt, random_llava
from vea_sdk.capture import interception
from vea_sdk.capture.prompt import PromptTracker
from vea_sdk.cli import main

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
needs_scripts = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="needs a source checkout")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts of the repository, importable as they import each other."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_alternate_takes_turns_and_drops_the_first() -> None:
    seen: list[str] = []
    found = alternate({"a": lambda: seen.append("a") or len(seen), "b": lambda: seen.append("b")}, rounds=20)
    rounds = [tuple(seen[i : i + 2]) for i in range(0, len(seen), 2)]
    assert len(rounds) == 21
    assert set(rounds) == {("a", "b"), ("b", "a")}  # each in every round, in either order
    assert found["a"] == [2 * i + 1 + one.index("a") for i, one in enumerate(rounds)][1:]
    alternate({"a": lambda: seen.append("c")}, rounds=9, budget=0.0)
    assert seen.count("c") == 4  # the round thrown away, and the three that are always taken


def test_ratios_are_taken_within_pairs() -> None:
    """A drift that hits both sides of a pair alike cancels; the ratio of the medians would be 1.1 here."""
    drift = [1.0, 7.0, 2.0, 5.0, 3.0]
    assert ratios([2 * d for d in drift], drift) == Spread(2.0, 2.0, 2.0)
    assert ratios([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5) == Spread(1.8, 3.0, 4.2)


def test_timer_measures_one_call() -> None:
    assert 0.02 <= timer(lambda: time.sleep(0.02))() < 0.04
    assert 0.0002 <= timer(lambda: time.sleep(0.0002), at_least=0.01)() < 0.002


def test_rows_describe_themselves_and_come_back(tmp_path: Path) -> None:
    one = row("a thing", Spread(0.9, 1.0, 1.2), "×", target="P4", limit=1.02, shape={"B": 2}, dtype=torch.bfloat16)
    assert (one.value, one.p20, one.p80, one.dtype, one.met) == (1.0, 0.9, 1.2, "bfloat16", True)
    named = {"device", "cores", "threads", "python", "torch", "transformers", "vea_sdk", "commit", "date"}
    assert named <= set(one.environment)
    assert one.environment["torch"] == torch.__version__
    assert "limit ≤ 1.02  held" in str(one)
    assert row("slow", 2.0, "×", limit=1.02).met is False
    assert row("fast", 2.0, "×", limit=1.02, better="higher").met is True
    assert row("free", 2.0, "×").met is None
    save([one], tmp_path / "new" / "rows.json")
    assert load(tmp_path / "new" / "rows.json") == [one]


@pytest.mark.parametrize("shape", [Shape(2, 4, 2, 37, 8), Shape(1, 3, 3, 1, 5)])
def test_what_is_compared_computes_the_same(shape: Shape) -> None:
    problem = Problem.random(shape, torch.float32)
    expected = ops.reference.image_attention(problem.query, problem.key, problem.image_index)
    for found in (problem.kernel(), problem.torch()):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert shape.key_bytes(torch.bfloat16) == problem.key.numel() * 2


def test_generation_is_timed_in_two_parts() -> None:
    model = random_llava(Decoder(2, 2, 1, 8, 16))
    inputs = prompt(model, 600)
    assert int((inputs["input_ids"] == 3).sum()) == 256
    for layers in (None, [1], "all"):
        started = time.perf_counter()
        taken = generate(model, inputs, 3, layers)
        passed = time.perf_counter() - started
        assert 0 < taken.decode < taken.total <= passed
        assert taken.prefill > 0


def test_steps_of_decoding_are_taken_in_turns_over_one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_llava(Decoder(3, 2, 1, 8, 16))
    steps = Steps(model, prompt(model, 600), {"some": [0, 2], "all": "all"})
    watching: list[int] = []
    short: list[bool] = []  # whether a pass was known for a step of decoding that follows one
    advance = PromptTracker.advance_by_token
    monkeypatch.setattr(
        PromptTracker,
        "advance_by_token",
        lambda *given: short.append((step := advance(*given)) is not None) or step,
    )
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **fed: watching.append(len(interception.ACTIVE.get())) or forward(**fed)
    )
    assert list(steps.measures()) == ["off", "some", "all"]
    for measure in [*steps.measures().values()] * 2:
        assert measure() > 0
        assert steps.cache.get_seq_length() == 600
    assert watching == [0, 0, 1, 1, 1, 1] * 2
    rows = steps.sessions["all"].attention
    assert rows.shape == (3, 1, 5, 256)
    assert torch.equal(rows[:, :, 1:3], rows[:, :, 3:])  # the same two tokens, after the same cache
    assert (rows[:, :, 1] != rows[:, :, 2]).any()
    assert short == [False, True] * 4  # the second one of each two is timed
    assert torch.equal(rows[[0, 2]], steps.sessions["some"].attention)
    assert (rows[:, :, 0] != rows[:, :, 1]).any()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quick._LARGE, "cpu", Shape(1, 4, 2, 512, 16))
    monkeypatch.setitem(quick._DECODER, "cpu", Decoder(2, 2, 1, 8, 16))
    monkeypatch.setitem(quick._PROMPT, "cpu", 300)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("arguments", [["--json"], []])
def test_vea_bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["vea", "bench", "--device", "cpu", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    out = capsys.readouterr().out
    if not arguments:
        assert "limit" in out
        return
    rows = [Row(**fields) for fields in json.loads(out)["rows"]]
    assert [one.target for one in rows] == ["P3", "P3", "P4"]
    assert all(0 < one.p20 <= one.value <= one.p80 for one in rows)


@pytest.mark.parametrize(("device", "message"), [("moon", "'moon' is unknown"), ("cuda", "no CUDA device")])
def test_vea_bench_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, device: str, message: str
) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("a GPU is here")
    monkeypatch.setattr(sys, "argv", ["vea", "bench", "--device", device])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@needs_scripts
@pytest.mark.usefixtures("scripts")
def test_the_document_is_what_the_rows_give() -> None:
    import table

    assert table.DOCUMENT.read_text(encoding="utf-8") == table.render(table.RESULTS)


@needs_scripts
@pytest.mark.usefixtures("scripts")
def test_a_missed_limit_is_written_down(tmp_path: Path) -> None:
    import table

    slow = row("slow", 1.5, "×", target="P3", limit=1.0, dtype=torch.float32)
    save([slow, row("good", 0.5, "×", target="P3", limit=1.0)], tmp_path / "benchmarks" / "results" / "kernel.json")
    text = table.render(tmp_path / "benchmarks" / "results")
    assert "| P3 | 2 | 1 | 1 |" in text
    assert "| P3 | slow |  | float32 | 1.5 × | ≤ 1 | **missed** |" in text


@needs_scripts
def test_every_committed_row_names_its_origin() -> None:
    for path in (SCRIPTS / "results").glob("*.json"):
        if path.stem == "ptxas":
            continue
        for one in load(path):
            assert {"device", "threads", "torch", "commit", "date"} <= set(one.environment), (path, one.what)


@needs_scripts
@pytest.mark.usefixtures("scripts")
def test_peak_memory_counts_what_is_held() -> None:
    import memory

    def call() -> torch.Tensor:
        first = torch.ones(1 << 20)
        second = first + 1
        del first
        return torch.cat([second, second])

    assert 12 << 20 <= memory.peak(call) < 13 << 20  # second, and twice its size


@needs_scripts
@pytest.mark.usefixtures("scripts")
def test_memory_that_capture_does_not_need_is_no_divisor() -> None:
    import memory

    def attention(capture: int) -> Row:
        peaks = {"plain": 100, "eager": 5100, "capture": capture}
        return memory.rows(Spread(5.0, 6.0, 7.0), peaks, {"prompt": 4096}, torch.float32)[1]

    assert (attention(102).value, attention(102).met) == (2500, True)
    for peak in (100, 60):
        one = attention(peak)
        assert (one.value, one.unit, one.limit) == (5000, "bytes", None)
        assert one.note == f"peak beyond the plain pass: eager 5,000 bytes, capture {peak - 100}"


@needs_scripts
@pytest.mark.usefixtures("scripts")
def test_slope_of_a_power_law() -> None:
    import growth

    assert growth.slope([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0]) == pytest.approx(2.0)


@needs_scripts
@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize(("name", "parameters"), [("Qwen2.5-VL-7B", 8_292_166_656), ("LLaVA-1.5-7B", 7_063_427_072)])
def test_seven_b_models_have_the_published_shape(name: str, parameters: int) -> None:
    from seven_b import FAMILIES

    family = FAMILIES[name]
    config = family.config()
    model = family.build(config, "meta")
    assert sum(p.numel() for p in model.parameters()) == parameters
    for tokens in (1400, 4096):
        ids = family.prompt(config, tokens)["input_ids"]
        assert ids.shape == (1, tokens)
        assert int((ids == config.image_token_id).sum()) > 0.8 * tokens


@needs_scripts
@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("name", ["Qwen2.5-VL-7B", "LLaVA-1.5-7B"])
def test_the_gpu_script_measures_a_small_model_on_the_cpu(name: str) -> None:
    import gpu
    from seven_b import FAMILIES

    family = FAMILIES[name]
    config = family.config()
    for part, layers in ((config.text_config, "num_hidden_layers"), (config.vision_config, None)):
        part.update({"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4, layers or "depth": 2})
    config.text_config.update(
        {"num_key_value_heads": 2, "vocab_size": 32100, "head_dim": 16, "layer_types": ["full_attention"] * 2}
    )
    config.vision_config.update({"num_heads": 4, "out_hidden_size": 64, "num_hidden_layers": 2, "image_size": 56})
    if name.startswith("Qwen"):
        for token in ("image", "video", "vision_start", "vision_end"):
            key = f"{token}_token_id"
            setattr(config, key, getattr(config, key) - 120_000)
        config.text_config.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    model = family.build(config, "cpu", torch.float32)
    inputs = family.prompt(config, 200)
    shape = {"model": name, "prompt": 200}
    steps = list(gpu.decoding(model, inputs, (0, 1), shape, rounds=3, device="cpu"))
    assert [one.limit for one in steps] == [1.01, 1.05]
    assert all(one.p20 < one.p80 and one.note.endswith("with, 3 rounds") for one in steps)
    prompts = list(gpu.prefilling(model, inputs, (0, 1), shape, rounds=1, device="cpu"))
    assert [one.target for one in prompts] == ["P5", "P5", "P4", "P4", "P7"]
    assert all(one.value > 0 for one in steps + prompts)


@needs_scripts
@pytest.mark.usefixtures("scripts")
def test_the_gpu_script_rates_the_kernel_against_a_copy() -> None:
    import gpu

    one = gpu.bandwidth(Shape(2, 4, 2, 64, 16), torch.float32, rounds=2, device="cpu", clock=timer)
    assert one.target == "P1"
    assert 0 < one.value < 10


@needs_scripts
def test_gpu_check_skips_every_stage_with_a_reason_where_there_is_no_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    command = ["bash", str(SCRIPTS / "gpu_check.sh"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable})
    lines = (tmp_path / "summary.txt").read_text().splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == 8
    assert all("skipped: torch sees no CUDA device here" in line for line in lines)


@needs_scripts
def test_the_sanitizers_script_agrees_with_the_reference() -> None:
    command = [sys.executable, str(SCRIPTS / "sanitize.py"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 300


@needs_scripts
@pytest.mark.usefixtures("scripts")
def test_the_compilers_report_is_read() -> None:
    import ptxas

    text = (
        "ptxas info    : Compiling entry function '_Z3fooPf' for 'sm_90'\n"
        "ptxas info    : Function properties for _Z3fooPf\n"
        "    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\n"
        "ptxas info    : Used 72 registers, used 1 barriers, 4100 bytes smem, 384 bytes cmem[0]\n"
    )
    assert ptxas.parse(text) == [{"kernel": "_Z3fooPf", "registers": 72, "spilled": 12, "stack": 16, "shared": 4100}]
    report = json.loads((SCRIPTS / "results" / "ptxas.json").read_text())
    assert {kernel["arch"] for kernel in report["kernels"]} == {"sm_80", "sm_90"}
    assert not [kernel for kernel in report["kernels"] if kernel["spilled"]]
    assert (SCRIPTS / "results" / "ptxas.md").read_text(encoding="utf-8") == ptxas.render(report)


def test_a_missed_limit_says_why() -> None:
    missed = row("x", Spread(1.1, 1.2, 1.3), "×", limit=1.0, reason="few cores")
    assert str(missed).split("MISSED: ")[1].startswith("few cores")
    assert "span the limit" in str(row("x", Spread(0.9, 1.2, 1.3), "×", limit=1.0, reason="few cores"))
    assert "MISSED" not in str(row("x", Spread(0.8, 0.9, 0.95), "×", limit=1.0))
    assert str(row("x", 0.9, "×", shape={"n": 3})) == "--  x: 0.9 × [0.9, 0.9]  (n=3 )"
