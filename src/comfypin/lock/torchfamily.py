"""Which packages are torch and what comes with it: most of an env's size, and they change together (pure)."""

import re

_FAMILY = re.compile(r"(torch|torchvision|torchaudio|triton|pytorch[-_]triton|xformers|nvidia[-_].*|cuda[-_].*)", re.I)


def of_torch(name: str) -> bool:
    """Whether a distribution belongs to torch's family, by its name."""
    return _FAMILY.fullmatch(name) is not None
