"""Decodes base64 as clients send it: padded or not, in either alphabet, in lines; damaged text is refused. Pure."""

import base64
import binascii
import string

_STANDARD = frozenset(string.ascii_letters + string.digits + "+/")
_TO_STANDARD = str.maketrans("-_", "+/")


def decode_base64(text: str) -> bytes:
    """Return the bytes. Raises `ValueError` with what is wrong, as the end of a sentence that begins with "it".

    Nothing is guessed: a space may have been a `+`, and bits that are left over at the end tell that it was cut.
    """
    letters = "".join(line.strip() for line in text.splitlines())
    if " " in letters or "\t" in letters:
        raise ValueError(
            "has spaces inside its base64: most likely each '+' became one on the way; send it in a JSON body, or "
            "write '+' as %2B if it goes through a form or an address"
        )
    digits = letters.rstrip("=")
    padding = len(letters) - len(digits)
    if "-" in digits or "_" in digits:
        if "+" in digits or "/" in digits:
            raise ValueError("mixes the two alphabets of base64 ('+/' and '-_')")
        digits = digits.translate(_TO_STANDARD)
    left_over = len(digits) % 4
    if left_over == 1 or padding > 2 or (padding and (len(digits) + padding) % 4):
        _refuse_other_letters(digits)
        raise ValueError("is incomplete: base64 never has this length; send it again")
    try:
        decoded = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        _refuse_other_letters(digits)
        raise
    if left_over and base64.b64encode(decoded[len(decoded) // 3 * 3 :]).rstrip(b"=").decode() != digits[-left_over:]:
        raise ValueError("is incomplete: its base64 ends within a byte; send it again")
    return decoded


def _refuse_other_letters(digits: str) -> None:
    foreign = next((letter for letter in digits if letter not in _STANDARD), None)
    if foreign == "%":
        raise ValueError("is not base64: '%' in it says that it was encoded for an address; send it as it was")
    if foreign is not None:
        raise ValueError(f"is not base64: it contains {foreign!r}")
