"""Real servers with the monitor attached: what Prometheus scrapes agrees with an offline capture of the requests."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vea_sdk as vea
from vea_sdk import tiny
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.statistics import STATISTICS

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytestmark = pytest.mark.slow  # each starts a process that loads torch and a model

SCRIPTS = Path(__file__).parents[1] / "docs" / "monitoring"
CLIENTS, REQUESTS, START = 4, 12, 120  # START: seconds until a server must answer
METRICS = {"image_mass": "image_mass", "entropy": "entropy_nats", "peak": "peak", "rapt_image": "rapt_image"}


@dataclass(frozen=True)
class Question:
    id: str
    text: str
    picture: Image.Image

    @property
    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.picture.save(buffer, "PNG")
        return buffer.getvalue()


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    samples = [sample for seed in range(30_000, 30_000 + REQUESTS) for sample in tiny.draw(seed, "receipt")[:1]]
    return [Question(f"q{i}", one.question, one.image.convert("RGB")) for i, one in enumerate(samples)]


@pytest.fixture(scope="module")
def offline(questions: list[Question]) -> dict[str, dict[str, float]]:
    """Figures of each question's one profiled layer, from ``vea.capture`` around a forward pass of the same inputs."""
    vlm = vea.load(tiny.checkpoint(), device="cpu", dtype=torch.float32)
    found = {}
    for one in questions:
        content = [{"type": "image"}, {"type": "text", "text": one.text}]
        chat = [{"role": "user", "content": content}]
        prompt = vlm.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        inputs = vlm.processor(images=one.picture, text=prompt, return_tensors="pt")
        with torch.inference_mode(), vea.capture(vlm.model, layers="profiled") as session:
            vlm.model(**inputs)
        assert len(session.layers) == 1  # so that the layers' mean row is its row
        found[one.id] = {name: getattr(session.stats, name).item() for name in METRICS}
    return found


@contextmanager
def served(script: str, records: Path) -> Iterator[str]:
    """The address of a server that runs ``script`` on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = records.with_suffix(".log")
    command = [sys.executable, str(SCRIPTS / script), str(tiny.checkpoint()), str(port), str(records)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            address, end = f"http://127.0.0.1:{port}", time.monotonic() + START
            while not answers(address):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
            yield address
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) in (0, -signal.SIGTERM), log.read_text()
        finally:
            process.kill()


def answers(address: str) -> bool:
    try:
        return bool(httpx.get(f"{address}/metrics/").status_code == 200)
    except httpx.TransportError:
        return False


def scraped(address: str) -> dict[tuple[str, str], float]:
    """Samples by name and upper bound, read by Prometheus' own parser, once all requests were drained."""
    from prometheus_client.parser import text_string_to_metric_families

    end = time.monotonic() + 30
    while True:
        families = text_string_to_metric_families(httpx.get(f"{address}/metrics/").text)
        found = {(s.name, s.labels.get("le", "")): s.value for family in families for s in family.samples}
        if found.get(("vea_requests_total", "")) == REQUESTS:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.2)


def check(
    found: dict[tuple[str, str], float], records: Path, offline: dict[str, dict[str, float]]
) -> dict[str, Record]:
    """Scraped histograms, written records and offline capture say the same."""
    written = [Record.from_dict(json.loads(line)) for line in records.read_text().splitlines()]
    buckets = {one.name: one.buckets for one in STATISTICS}
    for name, metric in METRICS.items():
        truth = sorted(figures[name] for figures in offline.values())
        assert sorted(getattr(one.mean, name) for one in written) == pytest.approx(truth, rel=1e-4)
        assert found[f"vea_{metric}_count", ""] == REQUESTS
        assert found[f"vea_{metric}_sum", ""] == pytest.approx(math.fsum(truth), rel=1e-5)
        for bound in buckets[name]:
            assert found[f"vea_{metric}_bucket", str(float(bound))] == sum(value <= bound for value in truth)
    for name in ("dropped", "unread", "failed", "nan"):
        assert found[f"vea_{name}_total", ""] == 0
    return {one.request: one for one in written}


def in_parallel(post: Any, questions: list[Question]) -> list[Any]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        responses = list(pool.map(post, questions))
    for response in responses:
        assert response.status_code == 200, response.text
    return [response.json() for response in responses]


def test_a_server_of_ones_own(questions: list[Question], offline: dict[str, dict[str, float]], tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    records = tmp_path / "records.jsonl"
    with served("server.py", records) as address:

        def post(one: Question) -> Any:
            headers = {"x-request-id": one.id, "content-type": "image/png"}
            url = f"{address}/ask"
            return httpx.post(url, params={"question": one.text}, content=one.png, headers=headers, timeout=120)

        replies = in_parallel(post, questions)
        found = scraped(address)
    assert all(reply["answer"] for reply in replies)
    written = check(found, records, offline)
    for name, figures in offline.items():  # each under the id that the client gave
        assert {figure: getattr(written[name].mean, figure) for figure in METRICS} == pytest.approx(figures, rel=1e-4)


def test_transformers_serve(questions: list[Question], offline: dict[str, dict[str, float]], tmp_path: Path) -> None:
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        pytest.skip("transformers serve needs fastapi, uvicorn, openai and pydantic: pip install transformers[serving]")
    records = tmp_path / "records.jsonl"
    with served("transformers_serve.py", records) as address:

        def post(one: Question) -> Any:
            url = "data:image/png;base64," + base64.b64encode(one.png).decode()
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": one.text}]
            messages = [{"role": "user", "content": content}]
            body = {"model": str(tiny.checkpoint()), "messages": messages, "max_tokens": 16}
            return httpx.post(f"{address}/v1/chat/completions", json=body, timeout=120)

        replies = in_parallel(post, questions)
        found = scraped(address)
    written = check(found, records, offline)
    fed = sorted(reply["usage"]["completion_tokens"] - 1 for reply in replies)  # the last one is not fed any more
    assert sorted(one.generated_tokens for one in written.values()) == fed
