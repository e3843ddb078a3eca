"""Makes previews of what nodes have made, and the two binary messages in which ComfyUI sends them."""

import io
import json
import struct

from PIL import Image

from comfypin.engine.embedded.arrays import PixelArray, to_bytes

LONGEST_SIDE = 512
_QUALITY = 85
_PREVIEW, _PREVIEW_WITH_METADATA = 1, 4
_JPEG = 1


def draw_preview(pixels: PixelArray) -> bytes:
    """Return the first picture of a batch as a JPEG of at most 512 pixels a side."""
    picture = pixels[0]
    # Every n-th pixel first: shrinking all of a large picture would take longer than many a node.
    step = max(1, max(picture.shape[:2]) // (2 * LONGEST_SIDE))
    pixel_bytes = to_bytes(picture[::step, ::step])
    drawn = Image.fromarray(pixel_bytes[..., 0] if pixel_bytes.shape[-1] == 1 else pixel_bytes[..., :3])
    drawn.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def plain_message(jpeg: bytes) -> bytes:
    """Return the message for clients that know no more than that it is a preview."""
    return struct.pack(">II", _PREVIEW, _JPEG) + jpeg


def message_with_metadata(jpeg: bytes, *, node_id: str, prompt_id: str) -> bytes:
    """Return the message for clients that said `supports_preview_metadata`."""
    ids = {"node_id": node_id, "display_node_id": node_id, "real_node_id": node_id, "parent_node_id": None}
    metadata = json.dumps({**ids, "prompt_id": prompt_id, "image_type": "image/jpeg"}).encode()
    return struct.pack(">II", _PREVIEW_WITH_METADATA, len(metadata)) + metadata + jpeg
