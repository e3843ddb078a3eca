"""Previews of the embedded engine, read as our own client reads ComfyUI's."""

import io

import numpy as np
import pytest
from PIL import Image

from comfypin.engine.embedded.previews import draw_preview, message_with_metadata, plain_message
from comfypin.engine.messages import AddressedMessage, PreviewImage, parse_binary


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 8, 8, 3), (8, 8)),
        ((3, 4000, 1000, 4), (128, 512)),
        ((1, 600, 1500, 1), (512, 205)),
        ((1, 1, 9000, 3), (512, 1)),
    ],
)
def test_a_picture_of_any_size_becomes_a_small_one(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    pixels = np.full(shape, 0.5, np.float32)
    with Image.open(io.BytesIO(draw_preview(pixels))) as drawn:
        assert (drawn.format, drawn.size) == ("JPEG", size)


def test_both_messages_are_read_as_comfyuis() -> None:
    jpeg = draw_preview(np.zeros((1, 2, 2, 3), np.float32))
    assert parse_binary(plain_message(jpeg)) == AddressedMessage(None, PreviewImage(None, "image/jpeg", jpeg))
    message = message_with_metadata(jpeg, node_id="7", prompt_id="p")
    assert parse_binary(message) == AddressedMessage("p", PreviewImage("7", "image/jpeg", jpeg))
