"""From an ended generation to the records of its requests; in the drain thread."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vea_sdk.adapters import Adapter, ImageLayout
from vea_sdk.capture.compiled import hidden
from vea_sdk.errors import NoImageError
from vea_sdk.monitor.figures import Read, in_figures, number, read
from vea_sdk.monitor.generation import Generation, Place
from vea_sdk.monitor.places import patches
from vea_sdk.monitor.record import Figures, Record
from vea_sdk.monitor.ring import Ring
from vea_sdk.printable import printable

_log = logging.getLogger("vea_sdk.monitor")
_STAGED = 1024  # float32 values: 4 KB of pinned memory
_NOTHING = Figures(None, None, None, None, None)


class Builder:
    """Makes records; ``bytes_copied`` counts what came from the device for the last one."""

    def __init__(
        self,
        adapter: Adapter,
        layers: tuple[int, ...],
        ring: Ring,
        top_k: int,
        rows: bool,
        content: bool,
        processor: Any,
    ) -> None:
        self._adapter, self._layers, self._ring, self._top_k = adapter, layers, ring, top_k
        self._rows, self._content, self._processor = rows, content, processor
        model = adapter.model
        self._model = str(getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__)
        self._streams: dict[torch.device, Any] = {}
        self._staging: Tensor | None = None
        self.bytes_copied = 0

    def dropped(self, request: str, why: str) -> Record:
        return self._without_figures(request, why, dropped=True)

    def record(self, generation: Generation, place: Place) -> Record:
        """Raises nothing: what went wrong stands in the record."""
        self.bytes_copied = 0
        record = self._record_of_attention(generation, place)
        try:
            found = self._certainty(generation, place)
        except Exception:
            _log.exception("the record of %s has no certainty", printable(place.request))
            found = None
        return record if found is None else replace(record, certainty=found[0], certainty_per_token=found[1])

    def _certainty(self, generation: Generation, place: Place) -> tuple[float, float] | None:
        chosen = generation.chosen
        if chosen is None or chosen.device is None:
            return None
        before = chosen.copied
        with self._after(generation, chosen.device):
            found = chosen.certainty(place.row)
        self.bytes_copied += chosen.copied - before
        return found

    def _record_of_attention(self, generation: Generation, place: Place) -> Record:
        try:
            return self._record(generation, place)
        except NoImageError:  # text alone, in which there was nothing to read
            assert generation.follower is not None
            return self._without_figures(
                place.request,
                None,
                images=0,
                finished=generation.finished,
                prompt_tokens=generation.prompt_length,
                generated_tokens=generation.follower.recorder.fed,
                timings=_timings(generation),
                content=self._said(generation, place) if self._content else None,
            )
        except Exception as error:
            _log.exception("the record of %s has no figures", printable(place.request))
            return self._without_figures(place.request, repr(error), finished=generation.finished)

    def _record(self, generation: Generation, place: Place) -> Record:
        follower = generation.follower
        assert follower is not None
        prompt, recorder = follower.prompt, follower.recorder
        known: dict[str, Any] = {
            "finished": generation.finished,
            "timings": _timings(generation),
            "generated_tokens": recorder.fed,
            "prompt_tokens": generation.prompt_length,
            "content": self._said(generation, place) if self._content else None,
        }
        if recorder.too_many:
            why = (
                f"{recorder.too_many} image tokens, but a place holds {self._ring.width}; "
                "raise max_image_tokens= of vea.monitor()"
            )
            return self._without_figures(place.request, why, dropped=True, **known)
        if isinstance(prompt.missing, NoImageError) and follower.problem is None:
            raise prompt.missing
        problem = follower.problem or (str(prompt.missing) if prompt.missing is not None else None)
        if not recorder.device_of:
            problem = problem or follower.untraced
        if problem is not None or not recorder.device_of:
            problem = problem or "no layer was read: the prompt did not get as far"
            return self._without_figures(place.request, problem, **known)
        assert generation.index is not None
        assert generation.valid is not None
        layouts = self._layouts(generation, place.number)
        with self._after(generation, next(iter(recorder.device_of.values()))):
            found = read(
                self._ring,
                place.slot,
                recorder.device_of,
                self._layers,
                generation.index[place.row],
                generation.valid[place.row],
                layouts,
                self._top_k,
                self._rows,
                self._staging,
            )
        self.bytes_copied = found.copied
        untraced = follower.untraced or self._missed(found, recorder.passes)
        if untraced is not None and any(math.isnan(mass) for mass in found.stats[:-1, 0].tolist()) and not found.nan:
            return self._without_figures(place.request, untraced, **known)
        if untraced is not None:
            known["unread"] = f"no trace: {untraced}"
        return self._with_figures(place.request, found, layouts, known)

    def _missed(self, found: Read, expected: int | None) -> str | None:
        """What graphs have not read, or have read too much; ``expected`` passes, None where the host does not know."""
        if not expected or (found.passes == expected and (found.nan or not found.blank)):
            return None
        if found.passes > expected:
            return "graphs of the model ran that the monitor was not told of."
        return str(hidden(found.blank or found.layers))

    def _with_figures(
        self, request: str, found: Read, layouts: Sequence[ImageLayout] | None, known: dict[str, Any]
    ) -> Record:
        mean, per_layer = in_figures(found, self._adapter.cross_attention)
        known["prompt_tokens"] = found.prompt
        if "unread" not in known:
            known |= {"generated_tokens": found.generated, "trace": found.trace if found.generated else None}
        return Record(
            request=request,
            time=time.time(),
            model=self._model,
            adapter=type(self._adapter).__name__,
            layers=found.layers,
            images=len(layouts) if layouts is not None else (0 if not found.image else None),
            image_tokens=found.image,
            mean=mean,
            per_layer=per_layer,
            agreement=found.agreement,
            top_patches=patches(found.top, layouts),
            spikes=found.spikes,
            border_share=found.border_share,
            nan=found.nan,
            rows=None if found.rows is None else tuple(tuple(map(number, row)) for row in found.rows.tolist()),
            **known,
        )

    def _without_figures(self, request: str, why: str | None, **known: Any) -> Record:
        """``why``: it could not be read; None where there was nothing to read."""
        counts = {"images": None, "image_tokens": 0, "prompt_tokens": 0, "generated_tokens": 0} | known
        return Record(
            request=request,
            time=time.time(),
            model=self._model,
            adapter=type(self._adapter).__name__,
            layers=self._layers,
            mean=_NOTHING,
            per_layer=(),
            unread=why,
            **counts,
        )

    def _layouts(self, generation: Generation, request: int) -> list[ImageLayout] | None:
        """Of the pictures of one request, None where their geometry is not known; computed once for a batch."""
        if generation.image_sizes is None:
            return None
        if generation.layouts is None:
            try:
                generation.layouts = self._lay_out(generation)
            except Exception as error:  # of a processor, too: the figures are worth having without boxes
                _log.warning("no boxes: %s", printable(error))
                generation.image_sizes = None
                return None
        return generation.layouts[request]

    def _lay_out(self, generation: Generation) -> list[list[ImageLayout]]:
        sizes = generation.image_sizes
        assert sizes is not None
        layouts = iter(self._adapter.layouts(generation.inputs, [one for row in sizes for one in row], self._processor))
        return [[next(layouts) for _ in row] for row in sizes]

    def _after(self, generation: Generation, device: torch.device) -> AbstractContextManager[object]:
        """On a GPU: a stream beside the model's, that waits for the generation's last pass."""
        if device.type != "cuda":
            return nullcontext()
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._staging = torch.empty(_STAGED, pin_memory=True)
        for event in generation.events.values():
            self._streams[device].wait_event(event)
        return torch.cuda.stream(self._streams[device])

    def _said(self, generation: Generation, place: Place) -> Mapping[str, Any]:
        """The prompt and the answer, as ids and, where the processor is known, as text."""
        prompts = generation.inputs.get("input_ids")
        ids = {"prompt": None if prompts is None else prompts[place.number], "answer": _answer(generation, place)}
        found: dict[str, Any] = {}
        for name, part in ids.items():
            found[f"{name}_ids"] = None if part is None else part.tolist()
            if part is not None and hasattr(self._processor, "decode"):
                found[name] = self._processor.decode(part, skip_special_tokens=name == "answer")
        return found


def _answer(generation: Generation, place: Place) -> Tensor | None:
    """What ``generate()`` returned after the prompt, the best of several; elsewhere the tokens that were fed back, all
    but the last."""
    sequences, prompts = generation.answer, generation.inputs.get("input_ids")
    if sequences is None or prompts is None:
        return torch.cat([ids[place.row] for ids in generation.fed]) if generation.fed else None
    sequence, prompt = sequences[place.number * (len(sequences) // len(prompts))], prompts[place.number]
    begins = len(sequence) > len(prompt) and torch.equal(sequence[: len(prompt)], prompt)
    return sequence[len(prompt) :] if begins else sequence


def _timings(generation: Generation) -> dict[str, float]:
    """Seconds of the host's clock; on a GPU the passes are only launched in them. "monitor": spent watching."""
    assert generation.follower is not None
    prefill = max(generation.prompt_ended - generation.started, 0.0)
    total = max(generation.touched - generation.started, 0.0)
    return {"prefill": prefill, "total": total, "monitor": generation.follower.seconds}
