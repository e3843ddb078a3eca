"""Recognises model formats: reads safetensors headers, and finds pickles under any name."""

import json
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.errors import ModelError
from comfypin.lock.model import ModelPin
from comfypin.models.errors import NotSafetensors, PickleRefused

# ComfyUI loads both by safetensors, which runs no code.
SAFETENSORS_SUFFIXES = frozenset({".safetensors", ".sft"})
PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".pt2"})
# https://huggingface.co/docs/safetensors: 8 bytes of length, little endian, then JSON; readers cap it at 100 MB.
MAX_HEADER_BYTES = 100_000_000
# More than any tensor library has; products of many great numbers take minutes.
MAX_DIMENSIONS = 64
# https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs; unknown ones are not checked.
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def pickle_by_name(model_pin: ModelPin) -> PickleRefused | None:
    """Return the refusal that a pin's file name alone earns, before anything is fetched."""
    suffix = Path(model_pin.target_path).suffix.lower()
    if model_pin.allow_pickle or suffix not in PICKLE_SUFFIXES:
        return None
    return PickleRefused(name=model_pin.name, target=model_pin.target_path, reason=f"{suffix} files are pickles")


def format_problem(file_path: Path, model_pin: ModelPin) -> ModelError | None:
    """Return what is wrong with the file's format, judged by its bytes, or None. Raises `OSError`."""
    by_name = pickle_by_name(model_pin)
    if by_name is not None:
        return by_name
    reason = None
    if Path(model_pin.target_path).suffix.lower() in SAFETENSORS_SUFFIXES:
        reason = safetensors_problem(file_path)
        if reason is None:
            # Loaders go by the name, so it is not a pickle, although its first length may look like the start of one.
            return None
    # Imported only where it is needed: a thousand good files are verified in less than a second.
    from comfypin.models.pickles import is_pickle

    if not model_pin.allow_pickle and is_pickle(file_path):
        return PickleRefused(
            name=model_pin.name, target=model_pin.target_path, reason="its bytes are a pickle, whatever its name says"
        )
    return (
        NotSafetensors(name=model_pin.name, target=model_pin.target_path, reason=reason) if reason is not None else None
    )


def safetensors_problem(file_path: Path) -> str | None:
    """Return what is wrong with a safetensors file, from its header and its size, or None. Raises `OSError`."""
    size_bytes = file_path.stat().st_size
    with file_path.open("rb") as file:
        length_bytes = file.read(8)
        if len(length_bytes) < 8:
            # Even an empty safetensors file has 8 bytes of length.
            return f"it has only {size_bytes} bytes"
        header_length = int.from_bytes(length_bytes, "little")
        if header_length > MAX_HEADER_BYTES or 8 + header_length > size_bytes:
            return (
                "it is a web page"
                if length_bytes.lstrip()[:1] == b"<"
                else f"its header would be {header_length} bytes long"
            )
        raw = file.read(header_length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        return "its header is not JSON"
    if not isinstance(header, dict):
        return "its header is not an object"
    return _tensors_problem(header, size_bytes - 8 - header_length)


def _tensors_problem(header: dict[str, JsonValue], data_bytes: int) -> str | None:
    spans: list[tuple[int, int]] = []
    for tensor_name, tensor in header.items():
        if tensor_name == "__metadata__":
            continue
        match tensor:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin_offset), int(end_offset)]}:
                expected = _DTYPE_BITS.get(dtype)
                if len(shape) > MAX_DIMENSIONS:
                    return f"the shape of {tensor_name!r} is wrong"
                for dimension in shape:
                    if not isinstance(dimension, int) or dimension < 0:
                        return f"the shape of {tensor_name!r} is wrong"
                    expected = None if expected is None else expected * dimension
                if expected is not None and expected != (end_offset - begin_offset) * 8:
                    return f"the bytes of {tensor_name!r} do not fit its shape"
                spans.append((begin_offset, end_offset))
            case _:
                return f"its header describes {tensor_name!r} wrongly"
    position = 0
    # The format allows neither gaps nor overlaps: bytes between tensors could hide anything.
    for begin_offset, end_offset in sorted(spans):
        if begin_offset != position or end_offset < begin_offset:
            return "its tensors are not contiguous"
        position = end_offset
    if position != data_bytes:
        return f"it has {data_bytes} bytes of tensors, and its header says {position}"
    return None
