"""Writes checkpoints that a ComfyUI takes for an SD 1.5, with random weights: the smallest one, and one of full size.

The small one has one UNet level and TAESD. The text encoder's shape is fixed (124 million weights), so it is stored in
8 bits; the file has some 140 MB. The full one has SD 1.5's own UNet in 16 bits: some 1.85 GB.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_CHANNELS = 320
_EMBEDDING = 4 * _CHANNELS
_CONTEXT = 768
_LAYERS = 12
_VOCABULARY = 49408
_POSITIONS = 77
_AUTOENCODER = 64
_NORMS = ("norm", "in_layers.0", "out_layers.0", "out.0")

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def write_tiny_checkpoint(path: Path, *, seed: int = 0) -> None:
    """The same seed gives the same bytes."""
    _write(path, dict(_checkpoint()), seed)


def write_full_checkpoint(path: Path, *, seed: int = 0) -> None:
    """SD 1.5's own UNet, for what depends on the size of a file."""
    _write(path, dict(_checkpoint(_full_unet())), seed)


def write_tiny_vae(path: Path, *, seed: int = 0) -> None:
    """Its decoder alone, as VAELoader takes it: some 2 MB."""
    _write(path, dict(_autoencoder()), seed)


def write_tiny_lora(path: Path, *, seed: int = 0) -> None:
    """A LoRA of rank 4 for the tiny checkpoint's attention, under the names that trainers give."""
    _write(path, dict(_lora()), seed)


def _lora() -> Shapes:
    for part in ("attn1_to_q", "attn1_to_v", "attn2_to_q", "attn1_to_out_0"):
        name = f"lora_unet_input_blocks_1_1_transformer_blocks_0_{part}"
        yield f"{name}.lora_down.weight", (4, _CHANNELS)
        yield f"{name}.lora_up.weight", (_CHANNELS, 4)


def _write(path: Path, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    random = np.random.default_rng(seed)
    header: dict[str, object] = {}
    offset = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape)) * (1 if _is_small(name, shape) else 2)
        dtype = "F8_E4M3" if _is_small(name, shape) else "F16"
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            file.write(_weights(name, shape, random))


def _is_small(name: str, shape: tuple[int, ...]) -> bool:
    return name.startswith("cond_stage_model") and len(shape) > 1


def _weights(name: str, shape: tuple[int, ...], random: np.random.Generator) -> bytes:
    count = int(np.prod(shape))
    if _is_small(name, shape):
        # Sign and mantissa at random, exponents from 2^-7 to 2^-6: small numbers, and never NaN.
        bits = random.integers(0, 256, count, dtype=np.uint8)
        return ((bits & 0x8F) | 0x08).tobytes()
    if name.endswith("weight") and (len(shape) == 1 or any(norm in name for norm in _NORMS)):
        return np.ones(count, np.float16).tobytes()
    if len(shape) == 1:
        return np.zeros(count, np.float16).tobytes()
    spread = (1.0 / int(np.prod(shape[1:]))) ** 0.5
    return (random.standard_normal(count, dtype=np.float32) * spread).astype(np.float16).tobytes()


def _checkpoint(unet: Shapes | None = None) -> Shapes:
    for prefix, part in (
        ("model.diffusion_model.", unet or _unet()),
        ("cond_stage_model.transformer.text_model.", _text_encoder()),
        ("first_stage_model.", _autoencoder()),
    ):
        yield from ((prefix + name, shape) for name, shape in part)


def _unet() -> Shapes:
    yield from _linear("time_embed.0", _CHANNELS, _EMBEDDING)
    yield from _linear("time_embed.2", _EMBEDDING, _EMBEDDING)
    yield from _convolution("input_blocks.0.0", 4, _CHANNELS)
    yield from _residual("input_blocks.1.0", _CHANNELS)
    yield from _transformer("input_blocks.1.1")
    yield from _residual("middle_block.0", _CHANNELS)
    for number in (0, 1):
        yield from _residual(f"output_blocks.{number}.0", 2 * _CHANNELS)
    yield from _norm("out.0", _CHANNELS)
    yield from _convolution("out.2", _CHANNELS, 4)


def _full_unet() -> Shapes:
    yield from _linear("time_embed.0", _CHANNELS, _EMBEDDING)
    yield from _linear("time_embed.2", _EMBEDDING, _EMBEDDING)
    yield from _convolution("input_blocks.0.0", 4, _CHANNELS)
    widths = [_CHANNELS, 2 * _CHANNELS, 4 * _CHANNELS, 4 * _CHANNELS]
    deepest = len(widths) - 1
    skipped = [_CHANNELS]
    number = 1
    for level, width in enumerate(widths):
        for _ in range(2):
            yield from _residual(f"input_blocks.{number}.0", skipped[-1], width)
            if level < deepest:
                yield from _transformer(f"input_blocks.{number}.1", width)
            skipped.append(width)
            number += 1
        if level < deepest:
            yield from _convolution(f"input_blocks.{number}.0.op", width, width)
            skipped.append(width)
            number += 1
    yield from _residual("middle_block.0", widths[-1], widths[-1])
    yield from _transformer("middle_block.1", widths[-1])
    yield from _residual("middle_block.2", widths[-1], widths[-1])
    below, number = widths[-1], 0
    for level, width in reversed([*enumerate(widths)]):
        for block in range(3):
            yield from _residual(f"output_blocks.{number}.0", below + skipped.pop(), width)
            if level < deepest:
                yield from _transformer(f"output_blocks.{number}.1", width)
            if level > 0 and block == 2:
                yield from _convolution(f"output_blocks.{number}.{2 if level < deepest else 1}.conv", width, width)
            below = width
            number += 1
    yield from _norm("out.0", _CHANNELS)
    yield from _convolution("out.2", _CHANNELS, 4)


def _residual(name: str, channels: int, width: int = _CHANNELS) -> Shapes:
    yield from _norm(f"{name}.in_layers.0", channels)
    yield from _convolution(f"{name}.in_layers.2", channels, width)
    yield from _linear(f"{name}.emb_layers.1", _EMBEDDING, width)
    yield from _norm(f"{name}.out_layers.0", width)
    yield from _convolution(f"{name}.out_layers.3", width, width)
    if channels != width:
        yield from _convolution(f"{name}.skip_connection", channels, width, size=1)


def _transformer(name: str, width: int = _CHANNELS) -> Shapes:
    yield from _norm(f"{name}.norm", width)
    yield from _convolution(f"{name}.proj_in", width, width, size=1)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", width), ("attn2", _CONTEXT)):
        yield f"{block}.{attention}.to_q.weight", (width, width)
        yield f"{block}.{attention}.to_k.weight", (width, context)
        yield f"{block}.{attention}.to_v.weight", (width, context)
        yield from _linear(f"{block}.{attention}.to_out.0", width, width)
    yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)
    yield from _linear(f"{block}.ff.net.2", 4 * width, width)
    for number in (1, 2, 3):
        yield from _norm(f"{block}.norm{number}", width)
    yield from _convolution(f"{name}.proj_out", width, width, size=1)


def _text_encoder() -> Shapes:
    yield "embeddings.token_embedding.weight", (_VOCABULARY, _CONTEXT)
    yield "embeddings.position_embedding.weight", (_POSITIONS, _CONTEXT)
    for number in range(_LAYERS):
        layer = f"encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{part}", _CONTEXT, _CONTEXT)
        yield from _linear(f"{layer}.mlp.fc1", _CONTEXT, 4 * _CONTEXT)
        yield from _linear(f"{layer}.mlp.fc2", 4 * _CONTEXT, _CONTEXT)
        yield from _norm(f"{layer}.layer_norm1", _CONTEXT)
        yield from _norm(f"{layer}.layer_norm2", _CONTEXT)
    yield from _norm("final_layer_norm", _CONTEXT)


def _autoencoder() -> Shapes:
    """The tiny autoencoder's decoder, by the numbers of its layers; its encoder is not needed to decode."""
    channels = _AUTOENCODER
    yield from _convolution("taesd_decoder.1", 4, channels)
    for block in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        for number in (0, 2, 4):
            yield from _convolution(f"taesd_decoder.{block}.conv.{number}", channels, channels)
    for number in (7, 12, 17):
        yield f"taesd_decoder.{number}.weight", (channels, channels, 3, 3)
    yield from _convolution("taesd_decoder.19", channels, 3)


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _convolution(name: str, inputs: int, outputs: int, *, size: int = 3) -> Shapes:
    yield f"{name}.weight", (outputs, inputs, size, size)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, channels: int) -> Shapes:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)
