"""Finding the decoder's softmax attention modules in a model that nobody described to us."""

from __future__ import annotations

from torch import nn

from vea_sdk.errors import UnsupportedModelError

# What a block calls its attention, in Transformers and elsewhere; a name decides before a class does.
ATTENTION_NAMES = ("self_attn", "attn", "self_attention", "attention")


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside PEFT's, torch.compile's and torch's parallel wrappers."""
    while True:
        model = without_parallel(model)
        if callable(base := getattr(model, "get_base_model", None)):
            model = base()
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            return model


def without_parallel(model: nn.Module) -> nn.Module:
    """The model inside DataParallel or DistributedDataParallel, which answers as it does alone."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    return model


def decoder_of(model: nn.Module) -> nn.Module:
    """The language model as Transformers names it (``get_decoder()``); any other model is its own decoder."""
    get_decoder = getattr(model, "get_decoder", None)
    decoder = get_decoder() if callable(get_decoder) else model
    return decoder if isinstance(decoder, nn.Module) else model


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The blocks of the language model, in order.

    Transformers' own answer (``get_decoder().layers``) where there is one, otherwise the only ModuleList
    whose blocks hold attention. Raises UnsupportedModelError when there is none, or more than one.
    """
    decoder = decoder_of(model)
    layers = getattr(decoder, "layers", None)
    if isinstance(layers, nn.ModuleList):
        return layers
    found = {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and any(attention_of(block) for block in module)
    }
    if len(found) == 1:
        return next(iter(found.values()))
    detail = f"several stacks of attention blocks ({', '.join(found)})" if found else "no stack of attention blocks"
    raise UnsupportedModelError(
        f"{type(model).__name__} has {detail}, so its decoder layers cannot be told. Subclass "
        "vea_sdk.adapters.Adapter, return their attention from attention_modules(), and pass the adapter."
    )


def attention_of(block: nn.Module) -> nn.Module | None:
    """The block's softmax attention module, or None (state-space, convolution, and linear-attention
    blocks)."""
    children = dict(block.named_children())
    for name in ATTENTION_NAMES:
        if name in children:
            return children[name] if is_softmax(children[name]) else None
    found = [child for child in children.values() if "attention" in type(child).__name__.lower()]
    return found[0] if len(found) == 1 and is_softmax(found[0]) else None


def is_softmax(module: nn.Module) -> bool:
    """Linear attention has no row of probabilities; its class says so."""
    return "linear" not in type(module).__name__.lower()
