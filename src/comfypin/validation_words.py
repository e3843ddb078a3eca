"""Says in our words what pydantic found wrong with a value: what it must be, or that it must be added. Pure.

pydantic is not imported, so that whoever only declares failures does not pay for it.
"""

from collections.abc import Mapping
from typing import Any

from comfypin.plurals import format_count

_MISSING = "it is missing; add it"
_TEXT, _WHOLE_NUMBER, _NUMBER = "it must be a text", "it must be a whole number", "it must be a number"
_TRUE_OR_FALSE, _LIST, _OBJECT = "it must be true or false", "it must be a list", "it must be an object"
# By pydantic's names of its errors: https://docs.pydantic.dev/latest/errors/validation_errors/
_SENTENCES: Mapping[str, str] = {
    "missing": _MISSING,
    "missing_argument": _MISSING,
    "missing_keyword_only_argument": _MISSING,
    "string_type": _TEXT,
    "string_sub_type": _TEXT,
    "string_unicode": "it must be a text without half characters (lone surrogates)",
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": "it must be a whole number with fewer digits",
    "int_from_float": _WHOLE_NUMBER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _TRUE_OR_FALSE,
    "bool_parsing": _TRUE_OR_FALSE,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _OBJECT,
    "mapping_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dataclass_type": _OBJECT,
    "dataclass_exact_type": _OBJECT,
    "unexpected_keyword_argument": "this key does not exist; remove it",
    "extra_forbidden": "this key does not exist; remove it",
}


def describe_problem(error: Mapping[str, Any], patterns: Mapping[str, str] | None = None) -> str:
    """Return what is wrong, from one item of `ValidationError.errors()`; the value itself is not repeated.

    `patterns` says what a text must be to match each of the caller's patterns: "it must be " goes before it.
    """
    error_type, limits = str(error["type"]), error.get("ctx") or {}
    if (sentence := _SENTENCES.get(error_type)) is not None:
        return sentence
    match error_type:
        case "literal_error" | "enum":
            return f"it must be {limits['expected']}"
        case "greater_than":
            return f"it must be more than {limits['gt']:g}"
        case "greater_than_equal":
            return f"it must be {limits['ge']:g} or more"
        case "less_than":
            return f"it must be less than {limits['lt']:g}"
        case "less_than_equal":
            return f"it must be {limits['le']:g} or less"
        case "string_too_short":
            return _at_least(limits["min_length"], "character")
        case "string_too_long":
            return f"it must have at most {format_count(limits['max_length'], 'character')}"
        case "too_short":
            return _at_least(limits["min_length"], "item")
        case "too_long":
            return f"it must have at most {format_count(limits['max_length'], 'item')}"
        case "string_pattern_mismatch":
            wanted = (patterns or {}).get(limits["pattern"])
            return f"it must match {limits['pattern']}" if wanted is None else f"it must be {wanted}"
    # A check of ours: its own sentence.
    return str(error["msg"]).removeprefix("Value error, ")


def _at_least(number: int, thing: str) -> str:
    return "it must not be empty" if number == 1 else f"it must have at least {format_count(number, thing)}"
