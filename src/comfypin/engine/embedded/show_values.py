"""Shows values as failures do: small ones whole, arrays abbreviated as torch prints tensors."""

from typing import Any

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import NodeValue


def show_value(value: NodeValue) -> JsonValue:
    """Convert a value to one that JSON can hold."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value) if isinstance(value, list) else _show_array(value)


def _show_array(values: Any) -> str:
    import numpy as np

    opening = "tensor("
    whole = bool(np.all(values == np.trunc(values)))  # torch writes 0. then, not 0.0000
    options: dict[str, Any] = {"separator": ", ", "prefix": opening, "threshold": 1000, "edgeitems": 3}
    array_text = np.array2string(values, precision=4, floatmode="unique" if whole else "fixed", **options)
    return f"{opening}{array_text})".replace(", ...,", ",  ...,")
