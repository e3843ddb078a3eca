"""The settings of outputs, whatever their sink: key template, format, and how much a result may hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from comfypin.outputs.image_format import ImageConversion, PictureFormat
from comfypin.outputs.key_template import DEFAULT_TEMPLATE, KeyTemplate, TemplateInvalid
from comfypin.settings.errors import SettingInvalid
from comfypin.settings.variables import Variables

# Runpod takes results of 10 MB from jobs of /run; the rest of a result needs a little of that. Its worker passes this
# to `wiring.make_sink`; a pipe or a file takes any size.
RUNPOD_RESULT_BYTES = 10_000_000 - 64_000
# A server of one's own keeps results in a database.
SERVER_RESULT_BYTES = 64_000_000
_TEMPLATE = "OUTPUT_KEY_TEMPLATE"
_FORMATS: dict[str, PictureFormat] = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputConfig:
    """Holds OUTPUT_KEY_TEMPLATE, OUTPUT_FORMAT, OUTPUT_QUALITY, OUTPUT_KEEP_WORKFLOW and INLINE_MAX_BYTES.

    `inline_max_bytes` is None if no limit is set.
    """

    template: KeyTemplate = field(default_factory=KeyTemplate.parse)
    conversion: ImageConversion = field(default_factory=ImageConversion)
    inline_max_bytes: int | None = None

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "OutputConfig":
        """Read the variables; empty ones count as unset. Raises `SettingInvalid`."""
        variables = Variables(environment)
        format_name = (variables.read_text("OUTPUT_FORMAT") or "png").lower()
        if format_name not in _FORMATS:
            raise SettingInvalid(variable="OUTPUT_FORMAT", value=format_name, expected="png, jpeg or webp")
        return cls(
            template=_parse_template(variables.read_text(_TEMPLATE) or DEFAULT_TEMPLATE),
            conversion=ImageConversion(
                format=_FORMATS[format_name],
                quality=variables.read_count("OUTPUT_QUALITY", default=90, minimum=1, maximum=100),
                keep_workflow=variables.read_flag("OUTPUT_KEEP_WORKFLOW", default=True),
            ),
            # If it is unset, the limit is the caller's: a Runpod result may hold less than a file.
            inline_max_bytes=variables.read_count("INLINE_MAX_BYTES", default=0)
            if variables.read_text("INLINE_MAX_BYTES")
            else None,
        )

    def with_wishes(
        self,
        *,
        template: str | None = None,
        picture_format: PictureFormat | None = None,
        quality: int | None = None,
        keep_workflow: bool | None = None,
    ) -> "OutputConfig":
        """Return the settings with what one job wishes instead. Raises `TemplateInvalid`."""
        default_conversion = self.conversion
        return replace(
            self,
            template=self.template if template is None else KeyTemplate.parse(template),
            conversion=ImageConversion(
                format=picture_format or default_conversion.format,
                quality=quality or default_conversion.quality,
                keep_workflow=default_conversion.keep_workflow if keep_workflow is None else keep_workflow,
            ),
        )


def _parse_template(template_text: str) -> KeyTemplate:
    try:
        return KeyTemplate.parse(template_text)
    except TemplateInvalid as exception:
        raise SettingInvalid(variable=_TEMPLATE, value=template_text, expected=exception.expected) from exception
