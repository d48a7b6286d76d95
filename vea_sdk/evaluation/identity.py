"""What results depend on, so that those of one model are never taken for those of another."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from vea_sdk.fingerprint import fingerprint
from vea_sdk.pipeline import VLM
from vea_sdk.profiles import is_folder, model_name


def describe(vlm: VLM) -> dict[str, Any]:
    """The wrapped model and every option that its answers and evidence depend on, ready for JSON."""
    eye = {} if vlm.attend_with is None else {"attend_with": describe(vlm.attend_with)}
    name = model_name(vlm.model)
    return {
        "model": Path(name).name if is_folder(name) else name,  # where a folder lies makes no difference
        "weights": fingerprint(vlm.model),
        "dtype": str(next(vlm.model.parameters()).dtype).removeprefix("torch."),
        "layers": list(vlm.layers),
        **vlm.constants._asdict(),
        "plain_prompt": vlm.plain_prompt,
        "highlight_prompt": vlm.highlight_prompt,
        "transformers": metadata.version("transformers"),
        **eye,
    }
