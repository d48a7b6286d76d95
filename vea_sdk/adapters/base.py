"""What differs between architectures, behind one class: attention modules, image token positions,
geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vea_sdk.adapters import support
from vea_sdk.adapters.call import AttentionCall
from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.frames import VideoLayout, VideoSize, merged_patches
from vea_sdk.adapters.geometry import ImageLayout, check_size
from vea_sdk.adapters.modules import attention_of, decoder_layers, decoder_of, unwrap
from vea_sdk.adapters.options import video_option
from vea_sdk.adapters.prompting import Pictures
from vea_sdk.errors import GeometryError, ImageTokenError, InvalidInputError, NoImageError, UnsupportedModelError


class Adapter:
    """One architecture's facts. The base class serves any decoder whose blocks hold one attention module.

    For a model of your own, override what differs: ``attention_modules`` and ``image_positions`` for capture,
    ``returned_weights`` or ``attention_call`` where attention is hidden, ``lay_out`` for maps on the picture and
    ``lay_out_videos`` for maps on frames; name the ``config.model_type`` values in ``model_types`` and call
    ``vea_sdk.adapters.register``.
    """

    model_types: ClassVar[tuple[str, ...]] = ()

    cross_attention: ClassVar[bool] = False
    """Whether the image tokens are keys of cross-attention (see ``CrossAttentionAdapter``), not of the prompt."""

    merged_attention: ClassVar[bool] = False
    """Whether one softmax runs over the decoder's own keys and, after them, the encoder's, which hold the image."""

    decoder_prefix: ClassVar[str] = ""
    """What the model's own forward puts before the names of the decoder's arguments: "decoder_" where it also feeds an
    encoder."""

    prompt_stays: ClassVar[bool] = False
    """Whether sliding layers forget generated tokens only, and the keys of the prompt keep their places."""

    no_question: ClassVar[str] = ""
    """Why the architecture cannot be asked a question, where it cannot."""

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrap(model)
        self.config: Any = getattr(self.model, "config", None)

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return model_type(model) in cls.model_types

    @property
    def name(self) -> str:
        """How error messages call the model."""
        return model_type(self.model) or type(self.model).__name__

    @property
    def decoder(self) -> nn.Module:
        """The module whose forward pass runs the decoder layers: the language model without its head."""
        return decoder_of(self.model)

    @property
    def n_layers(self) -> int:
        """Decoder layers, those without softmax attention included; where the decoder's stack is not known, as many as
        ``attention_modules`` names."""
        try:
            return len(decoder_layers(self.model))
        except UnsupportedModelError:
            return max(self.modules_by_layer()) + 1

    def modules_by_layer(self) -> dict[int, nn.Module]:
        """What ``attention_modules`` says, a list in its order; not for overriding.

        Raises InvalidInputError where that is neither modules by layer number nor a list of them.
        """
        said: Any = self.attention_modules()
        found = dict(enumerate(said)) if isinstance(said, Sequence | nn.ModuleList) else said
        if not isinstance(found, Mapping) or not all(
            isinstance(number, int) and number >= 0 and isinstance(module, nn.Module)
            for number, module in found.items()
        ):
            raise InvalidInputError(
                f"{type(self).__name__}.attention_modules() returned {type(said).__name__}, and not modules by layer. "
                "Return a dict {layer number: module}, or a list with a module for each layer."
            )
        return dict(found)

    def attention_modules(self) -> Mapping[int, nn.Module] | Sequence[nn.Module]:
        """Layer number → the module that computes softmax attention in that layer of the language model; a list where
        every layer has one.

        Layers without softmax attention are absent. A module that runs several times in a pass stands there once for
        every run, each a layer of its own, in their order. Raises UnsupportedModelError when no layer has any.
        """
        found = {i: attention_of(block) for i, block in enumerate(decoder_layers(self.model))}
        modules = {i: module for i, module in found.items() if module is not None}
        if not modules:
            raise UnsupportedModelError(
                f"{self.name}: none of its {len(found)} decoder layers holds softmax attention. If they do "
                "under another name, subclass vea_sdk.adapters.Adapter and return them from "
                "attention_modules()."
            )
        return modules

    def returned_weights(self, output: Any) -> Tensor | None:
        """The weights [B, heads, queries, keys] in what an attention module returned, where it computes them itself
        instead of calling an attention function; None where it does not."""
        return None

    def attention_call(self, module: nn.Module, inputs: Mapping[str, Any], output: Any) -> AttentionCall | None:
        """Query and keys of an attention module whose kernel hides them; None where nothing is hidden.

        Asked after the module's forward, and only where no attention function was called. ``inputs``: the named
        arguments of that forward; ``output``: what it returned. The query holds every token of the pass, the keys
        those of the cache, too. ``causal=True`` is for a pass without earlier keys: it lets row i see keys 0 to i.
        """
        return None

    @property
    def image_token_id(self) -> int:
        """The id of the placeholder that image embeddings replace."""
        token_id = getattr(self.config, "image_token_id", None)
        if token_id is None:
            raise ImageTokenError(
                f"{self.name}: the configuration names no image_token_id. Set config.image_token_id, "
                "override image_token_id in an adapter, or pass image_positions=."
            )
        return int(token_id)

    @property
    def video_token_id(self) -> int | None:
        """The id of the placeholder that embeddings of video frames replace; None where it is the image's, or where
        the model takes no video."""
        token_id = getattr(self.config, "video_token_id", None)
        return None if token_id is None else int(token_id)

    def image_positions(self, input_ids: Tensor) -> Tensor:
        """Key positions of the image tokens, in prompt order: of pictures, and of the frames of videos.

        ``input_ids``: [B, N]. Returns [B, M] int64 with M the most image tokens in a row; rows with fewer end
        in −1. A prompt with pictures and videos has all their tokens here, in the order in which they stand in it.
        Raises ImageTokenError when no row holds an image token.
        """
        is_visual = self.is_visual(input_ids)
        most = int(is_visual.sum(dim=1).max())
        if most == 0:
            video = "" if self.video_token_id is None else f" and no video token (id {self.video_token_id})"
            raise NoImageError(
                f"{self.name}: no image token (id {self.image_token_id}){video} among the {input_ids.shape[1]} "
                "tokens of the prompt. Give the processor a picture, put the image placeholder into the "
                "prompt (a chat template does), or pass image_positions= with inputs_embeds."
            )
        return marked_positions(is_visual, most)

    def video_positions(self, input_ids: Tensor) -> Tensor:
        """Key positions of the tokens of videos, as ``image_positions`` gives those of all that is seen.

        Raises ImageTokenError when no row holds one.
        """
        is_video = self.is_video(input_ids)
        most = int(is_video.sum(dim=1).max())
        if most == 0:
            raise ImageTokenError(
                f"{self.name}: no token of a video among the {input_ids.shape[1]} tokens of the prompt. Give the "
                "processor videos=, and put the video placeholder into the prompt (a chat template does)."
            )
        return marked_positions(is_video, most)

    def is_visual(self, input_ids: Tensor) -> Tensor:
        """Which tokens stand for pictures or frames: [B, N] bool."""
        is_image = self._is_image(input_ids)
        return is_image if self.video_token_id is None else is_image | (input_ids == self.video_token_id)

    def is_video(self, input_ids: Tensor) -> Tensor:
        """Which tokens stand for frames: [B, N] bool. Those of the video's own id, and where the prompt holds none,
        those of the image's: some processors write frames as pictures with their time beside them."""
        is_video = torch.zeros_like(input_ids, dtype=torch.bool)
        if self.video_token_id is not None:
            is_video = input_ids == self.video_token_id
        return is_video if is_video.any() else self._is_image(input_ids)

    def prompt_positions(self, fed: Mapping[str, Any]) -> Tensor:
        """``image_positions`` of one pass of the decoder, from its named arguments and those of the model."""
        ids = fed.get("input_ids")
        if ids is None:
            raise ImageTokenError(
                "the model was called with embeddings, which do not show where the image tokens are. Give "
                "image_positions=, the key positions [batch, image tokens]."
            )
        return self.image_positions(ids)

    @property
    def encoder_embedding(self) -> nn.Module | None:
        """The module that embeds the prompt's ids, where the decoder does not get them: in an encoder-decoder, and
        where generation feeds embeddings. The ids then are in ``fed["encoder_input_ids"]``."""
        return None

    def vision_positions(self, fed: Mapping[str, Any]) -> Tensor:
        """Key positions of the image tokens where ``cross_attention`` is set; see ``CrossAttentionAdapter``."""
        raise UnsupportedModelError(f"{self.name} does not look at pictures through cross-attention.")

    def layouts(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        """How each picture of the prompt became tokens, in prompt order (row after row in a batch).

        ``inputs``: what the processor returned; ``image_sizes``: (height, width) of the original pictures;
        ``processor``: the processor that made the inputs. Raises GeometryError when the layouts do not
        account for exactly the image tokens that the prompt holds.
        """
        for size in image_sizes:
            check_size("Each of image_sizes", size)
        self.image_positions(inputs["input_ids"])  # raises when there is no image token at all
        layouts = self.lay_out(inputs, [(int(h), int(w)) for h, w in image_sizes], processor)
        self.check_layouts(inputs["input_ids"], layouts)
        return layouts

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        """``layouts`` before the check: the one method of a lineage that knows its image processor."""
        raise GeometryError(
            f"{self.name}: no image geometry is known for this architecture, so attention cannot be laid on "
            "the picture. Subclass vea_sdk.adapters.Adapter and override lay_out()."
        )

    def video_layouts(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        """How each video of the prompt became tokens, in prompt order (row after row in a batch).

        ``inputs``: what the processor returned; ``video_sizes``: (number of frames, (height, width)) of the videos as
        they were given to it, nothing sampled afterwards; ``processor``: the processor that made the inputs. Raises
        GeometryError when the layouts do not account for exactly the tokens of videos that the prompt holds. Where
        frames bear the image's own token id, the prompt may hold no picture beside the video.
        """
        for n_frames, size in video_sizes:
            check_size("Each frame of video_sizes", size)
            if n_frames < 1:
                raise GeometryError(f"A video of {n_frames} frames shows nothing. Give at least one.")
        if getattr(processor, "video_processor", None) is None:
            raise GeometryError(
                f"{self.name}: its processor ({type(processor).__name__}) has no video processor, so it prepares no "
                "frames. Load the checkpoint with AutoProcessor, with torchvision installed, or give the frames as "
                "pictures."
            )
        self.video_positions(inputs["input_ids"])  # raises when there is no such token at all
        sizes = [(int(n), (int(h), int(w))) for n, (h, w) in video_sizes]
        layouts = self.lay_out_videos(inputs, sizes, processor)
        found = self.is_video(inputs["input_ids"]).sum(dim=1).tolist()
        if not _filled(found, [layout.n_tokens for layout in layouts]):
            raise GeometryError(
                f"{self.name}: the prompt holds {sum(found)} tokens of videos (by row: {found}), the frames account "
                f"for {sum(layout.n_tokens for layout in layouts)}: {'; '.join(map(str, layouts))}. Give the number of "
                "frames and their (height, width), in prompt order, as the processor got them, with "
                "do_sample_frames=False, so that it drops none."
            )
        return layouts

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        """``video_layouts`` before the check. Here: what the processor returned as ``video_grid_thw``, (steps, rows,
        columns) of patches, in one row per video or in several that follow each other."""
        if "video_grid_thw" not in inputs:
            raise GeometryError(
                f"{self.name}: no geometry of video is known for this architecture, so attention cannot be laid on its "
                "frames. Subclass vea_sdk.adapters.Adapter and override lay_out_videos()."
            )
        grids = iter(inputs["video_grid_thw"].tolist())
        together = self.frames_per_step(processor)
        layouts = []
        for n_frames, size in video_sizes:
            steps: list[ImageLayout] = []
            while len(steps) * together < n_frames:
                patches, rows, cols = next(grids, (0, 0, 0))
                if not patches:
                    raise GeometryError(
                        f"{self.name}: video_grid_thw describes {len(steps)} steps of {together} frames, the video has "
                        f"{n_frames} frames. Give every video, and do_sample_frames=False to the processor."
                    )
                frame = self.lay_out_frame(size, (rows, cols), processor)
                steps += [frame] * self.steps_of(patches, processor)
            layouts.append(VideoLayout.of(steps, n_frames, together))
        return layouts

    def lay_out_frame(self, size: tuple[int, int], patch_grid: tuple[int, int], processor: Any) -> ImageLayout:
        """One step of time: a frame resized to ``patch_grid`` (rows, cols) patches."""
        patch, merge = (int(video_option(processor, name) or 1) for name in ("patch_size", "merge_size"))
        return merged_patches(size, patch_grid, patch, merge)

    def frames_per_step(self, processor: Any) -> int:
        """How many frames share the tokens of one step."""
        return int(video_option(processor, "temporal_patch_size") or 1)

    def steps_of(self, patches: int, processor: Any) -> int:
        """How many steps so many patches along the axis of time make."""
        return patches

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """Model inputs of one turn per row, where there is no chat template: this architecture's own prompt protocol.

        ``pictures``, ``texts``: of each row; ``padding``: what the processor is told where there are several rows.
        Raises UnsupportedModelError where no protocol is known.
        """
        token = getattr(processor, "image_token", None)
        if not isinstance(token, str):
            raise UnsupportedModelError(
                f"{self.name}: how a prompt shows a picture is not known, for this {type(processor).__name__} has "
                "neither a chat template nor an image_token. Set processor.chat_template, override prepare() in an "
                "adapter, or prepare the inputs yourself and use vea.capture()."
            )
        prompts = [token * len(row) + "\n" + text for row, text in zip(pictures, texts, strict=True)]
        try:
            return processor(
                images=[list(row) for row in pictures] if padding else list(pictures[0]),
                text=prompts if padding else prompts[0],
                return_tensors="pt",
                **padding,
            )
        except (ValueError, IndexError, KeyError) as error:
            raise UnsupportedModelError(
                f"{self.name}: its processor has no chat template, and does not take {token!r} before the text for a "
                f"picture ({error}). Set processor.chat_template, or override prepare() in an adapter."
            ) from error

    @property
    def batches_differ(self) -> bool:
        """Whether this architecture answers otherwise in a padded batch than alone, so that rows are run one by one."""
        return support.batches_differ(self.name)

    def prompt_length(self, inputs: Mapping[str, Any]) -> int:
        """How many of the tokens that ``generate()`` returns belong to the prompt; of an encoder-decoder's, the token
        that starts its text, and those that were given to go on from."""
        if getattr(self.config, "is_encoder_decoder", False):
            given = inputs.get("decoder_input_ids")
            return 1 if given is None else 1 + int(given.shape[1])
        ids = inputs.get("input_ids")
        return 0 if ids is None else int(ids.shape[1])

    def canvases(self, layout: ImageLayout, processor: Any) -> list[Canvas]:
        """What ``pixel_values`` hold of a picture, in their order: regions of the original at the processed size.

        Needed by ``highlight_on="tensor"`` only. Right for processors that resize and crop, and then rescale and
        normalise; what is padded must be black and padded after the resize.
        """
        raise UnsupportedModelError(
            f"{self.name}: this adapter does not say which part of the picture each value of pixel_values shows, so "
            'they cannot be highlighted. Use highlight_on="picture", or override canvases() in an adapter.'
        )

    def shows_video(self, input_ids: Tensor) -> bool:
        """Whether a prompt holds tokens of videos that can be told from those of pictures."""
        return self.video_token_id is not None and bool((input_ids == self.video_token_id).any())

    def first_tokens(self, input_ids: Tensor, layouts: Sequence[ImageLayout] | Sequence[VideoLayout]) -> list[int]:
        """Where the tokens of each picture, or of each video, begin among ``image_positions`` of its row.

        ``layouts``: what ``layouts`` or ``video_layouts`` gave for these ids. With pictures alone this counts up their
        tokens; where a prompt shows pictures and videos, the others' tokens stand between. Raises GeometryError when
        the layouts do not fill their tokens.
        """
        of_videos = bool(layouts) and isinstance(layouts[0], VideoLayout)
        marked = self.is_video(input_ids) if of_videos else self._is_image(input_ids)
        ranks = [
            row[seen].nonzero().flatten().tolist() for row, seen in zip(marked, self.is_visual(input_ids), strict=True)
        ]
        if not _filled([len(row) for row in ranks], [layout.n_tokens for layout in layouts]):
            raise GeometryError(
                f"{self.name}: the layouts account for {sum(layout.n_tokens for layout in layouts)} tokens, the prompt "
                f"holds {sum(map(len, ranks))}. Give the layouts of these very inputs."
            )
        left = [rank for row in ranks for rank in row]
        before = [0, *accumulate(layout.n_tokens for layout in layouts)]
        return [left[count] for count in before[:-1]]

    def check_layouts(self, input_ids: Tensor, layouts: Sequence[ImageLayout]) -> None:
        """Raises GeometryError unless the layouts account for the image tokens of every row of
        ``input_ids``."""
        if self.fits(input_ids, layouts):
            return
        found = self._is_image(input_ids).sum(dim=1).tolist()
        raise GeometryError(
            f"{self.name}: the prompt holds {sum(found)} image tokens (by row: {found}), the pictures "
            f"account for {sum(layout.n_tokens for layout in layouts)}: {'; '.join(map(str, layouts))}. Give "
            "the (height, width) of the original pictures in prompt order, and the very processor that made "
            "the inputs; options passed in the call to it (sizes, crops) are unknown here, so set them on "
            "the processor."
        )

    def check_pictures(self, given: int, seen: int) -> None:
        """Raises GeometryError unless sizes were ``given`` for as many pictures as the processor has ``seen``."""
        if given != seen:
            raise GeometryError(
                f"{self.name}: {given} image_sizes were given, but the processor saw {seen} pictures. Give the "
                "(height, width) of every picture, in prompt order."
            )

    def fits(self, input_ids: Tensor, layouts: Sequence[ImageLayout]) -> bool:
        """Whether the pictures' tokens fill the image tokens of every row, no picture crossing into
        another row."""
        found = self._is_image(input_ids).sum(dim=1).tolist()
        return _filled(found, [layout.n_tokens for layout in layouts])

    def _is_image(self, input_ids: Tensor) -> Tensor:
        if input_ids.ndim != 2:
            raise InvalidInputError(f"input_ids must be [batch, tokens]; got shape {tuple(input_ids.shape)}.")
        return input_ids == self.image_token_id


def _filled(found: Sequence[int], described: Sequence[int]) -> bool:
    """Whether what is described (tokens of each picture or video) fills what every row holds, none crossing into
    another row."""
    ends, edges = list(accumulate(found)), [0, *accumulate(described)]
    return ends[-1] == edges[-1] and set(ends) <= set(edges)


def marked_positions(marked: Tensor, width: int) -> Tensor:
    """Where the marks [B, N] are, in order: [B, width] int64, −1 where a row has fewer than ``width``."""
    # A stable sort by "is not marked" puts the marked positions first and keeps their order.
    positions = torch.argsort((~marked).to(torch.uint8), dim=1, stable=True)[:, :width]
    rank = torch.arange(width, device=positions.device)
    return torch.where(rank < marked.sum(dim=1, keepdim=True), positions, -1)


def model_type(model: nn.Module) -> str | None:
    """``config.model_type`` of a Transformers model, also inside a wrapper; None for any other model."""
    name = getattr(getattr(unwrap(model), "config", None), "model_type", None)
    return name if isinstance(name, str) else None
