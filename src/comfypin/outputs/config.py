"""What the variables say of outputs wherever they go: names of keys, formats, how much a result may hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.errors.storage import SettingInvalid
from comfypin.outputs.convert import Conversion, PictureFormat
from comfypin.outputs.template import DEFAULT_TEMPLATE, VARIABLE, KeyTemplate
from comfypin.storage.variables import Variables

# RunPod takes results of 10 MB from jobs of /run; the rest of a result needs a little of that. Its worker passes this
# to `wiring.make_sink`; a pipe or a file takes any size.
RUNPOD_RESULT_BYTES = 10_000_000 - 64_000
# A server of one's own keeps results in a database.
SERVER_RESULT_BYTES = 64_000_000
_FORMATS: dict[str, PictureFormat] = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputConfig:
    """`OUTPUT_KEY_TEMPLATE`, `OUTPUT_FORMAT`, `OUTPUT_QUALITY`, `OUTPUT_KEEP_WORKFLOW` and `INLINE_MAX_BYTES`.

    `inline_max_bytes` is None where nobody set a limit.
    """

    template: KeyTemplate = field(default_factory=KeyTemplate.parse)
    conversion: Conversion = field(default_factory=Conversion)
    inline_max_bytes: int | None = None

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "OutputConfig":
        """Read the variables; empty ones count as unset. Raises `SettingInvalid`."""
        env = Variables(environ)
        wanted = (env.text("OUTPUT_FORMAT") or "png").lower()
        if wanted not in _FORMATS:
            raise SettingInvalid(variable="OUTPUT_FORMAT", value=wanted, expected="png, jpeg or webp")
        quality = env.count("OUTPUT_QUALITY", default=90, maximum=100)
        if quality == 0:
            raise SettingInvalid(variable="OUTPUT_QUALITY", value="0", expected="a number from 1 to 100")
        return cls(
            template=KeyTemplate.parse(env.text(VARIABLE) or DEFAULT_TEMPLATE),
            conversion=Conversion(
                format=_FORMATS[wanted],
                quality=quality,
                keep_workflow=env.flag("OUTPUT_KEEP_WORKFLOW", default=True),
            ),
            inline_max_bytes=env.count("INLINE_MAX_BYTES", default=0) if env.text("INLINE_MAX_BYTES") else None,
        )
