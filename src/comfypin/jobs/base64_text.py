"""Decodes base64 as clients send it: padded or not, in either alphabet, in lines; damaged text is refused. Pure."""

import base64
import binascii
import string

_STANDARD = frozenset(string.ascii_letters + string.digits + "+/")
_TO_STANDARD = str.maketrans("-_", "+/")


def decode_base64(encoded_text: str) -> bytes:
    """Return the bytes. Raises `ValueError` with what is wrong, as the end of a sentence that begins with "it".

    Nothing is guessed: a space may have been a `+`, and bits that are left over at the end tell that it was cut.
    """
    # E-mail and some encoders break lines; a space inside a line is different, and is refused below.
    letters = "".join(line.strip() for line in encoded_text.splitlines())
    if " " in letters or "\t" in letters:
        raise ValueError(
            "has spaces inside its base64: most likely each '+' became one on the way; send it in a JSON body, or "
            "write '+' as %2B if it goes through a form or an address"
        )
    base64_digits = letters.rstrip("=")
    padding_count = len(letters) - len(base64_digits)
    if "-" in base64_digits or "_" in base64_digits:
        if "+" in base64_digits or "/" in base64_digits:
            raise ValueError("mixes the two alphabets of base64 ('+/' and '-_')")
        base64_digits = base64_digits.translate(_TO_STANDARD)
    left_over = len(base64_digits) % 4
    # Three bytes become four characters, so one character left over is impossible.
    if left_over == 1 or padding_count > 2 or (padding_count and (len(base64_digits) + padding_count) % 4):
        _refuse_other_letters(base64_digits)
        raise ValueError("is incomplete: base64 never has this length; send it again")
    try:
        decoded = base64.b64decode(base64_digits + "=" * (-len(base64_digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        _refuse_other_letters(base64_digits)
        raise
    if (
        left_over
        and base64.b64encode(decoded[len(decoded) // 3 * 3 :]).rstrip(b"=").decode() != base64_digits[-left_over:]
    ):
        raise ValueError("is incomplete: its base64 ends within a byte; send it again")
    return decoded


def _refuse_other_letters(base64_digits: str) -> None:
    foreign = next((character for character in base64_digits if character not in _STANDARD), None)
    if foreign == "%":
        raise ValueError("is not base64: '%' in it says that it was encoded for an address; send it as it was")
    if foreign is not None:
        raise ValueError(f"is not base64: it contains {foreign!r}")
