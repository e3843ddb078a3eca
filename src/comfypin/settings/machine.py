"""The settings of this machine: its release, and the folders of ComfyUI and the models."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.settings.variables import Variables


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """`COMFY_HOME`, `MODELS_DIR`, and the release: `LOCK_PATH`, else `COMFY_VERSION_NAME`.

    `carried_lock` is COMFYPIN_LOCK_DATA, a whole lock as text; `lock_url` COMFYPIN_LOCK_URL, its address and digest.
    They come after `LOCK_PATH` and before `COMFY_VERSION_NAME`, which an image has of its own.
    `fast_models_dir` is COMFYPIN_FAST_MODELS, the folder of staged models; the engine looks there first.
    `embedded_version` is COMFYPIN_EMBEDDED_VERSION, the ComfyUI release that the embedded engine imitates.
    `comfy_python` is COMFY_PYTHON, the Python of a ComfyUI that comfypin did not install.
    `engine_standby` is COMFYPIN_ENGINE_STANDBY: whether a second engine waits to take a dead one's place.
    `warms_up` is COMFYPIN_WARMUP: whether the release's own workflow runs before the first job. `read_ahead_gb` is
    COMFYPIN_READ_AHEAD_GB, what may be read of its models while the engine starts; None: half of the free memory.
    `api_nodes` is COMFYPIN_API_NODES: whether ComfyUI loads its API nodes; None: if a workflow of the release has one.
    """

    comfy_home: Path
    named_models_dir: Path | None = None
    lock_path: Path | None = None
    version_name: str | None = None
    carried_lock: str | None = field(default=None, repr=False)
    lock_url: str | None = None
    fast_models_dir: Path | None = None
    embedded_version: str | None = None
    engine_standby: bool = False
    comfy_python: Path | None = None
    warms_up: bool = True
    read_ahead_gb: int | None = None
    api_nodes: bool | None = None

    @property
    def models_dir(self) -> Path:
        """Return the folder of models: MODELS_DIR, else `models` in COMFY_HOME."""
        return self.named_models_dir or self.comfy_home / "models"

    def with_flags(
        self, *, comfy_home: Path | None = None, models_dir: Path | None = None, comfy_python: Path | None = None
    ) -> "MachineSettings":
        """Return the settings with the values of flags instead of the environment's."""
        # An absent flag leaves what the environment says.
        return replace(
            self,
            comfy_home=comfy_home or self.comfy_home,
            named_models_dir=models_dir or self.named_models_dir,
            comfy_python=comfy_python or self.comfy_python,
        )

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "MachineSettings":
        """Read the variables; empty ones count as unset."""
        variables = Variables(environment)
        api_nodes = variables.read_word("COMFYPIN_API_NODES", ("auto", "on", "off"))
        names_read_ahead = variables.read_text("COMFYPIN_READ_AHEAD_GB") is not None
        return cls(
            # The images that comfypin builds have it there.
            comfy_home=variables.read_path("COMFY_HOME") or Path("/opt/comfy"),
            named_models_dir=variables.read_path("MODELS_DIR"),
            lock_path=variables.read_path("LOCK_PATH"),
            version_name=variables.read_text("COMFY_VERSION_NAME"),
            carried_lock=variables.read_text("COMFYPIN_LOCK_DATA"),
            lock_url=variables.read_text("COMFYPIN_LOCK_URL"),
            fast_models_dir=variables.read_path("COMFYPIN_FAST_MODELS"),
            embedded_version=variables.read_text("COMFYPIN_EMBEDDED_VERSION"),
            engine_standby=variables.read_flag("COMFYPIN_ENGINE_STANDBY"),
            comfy_python=variables.read_path("COMFY_PYTHON"),
            warms_up=variables.read_flag("COMFYPIN_WARMUP", default=True),
            read_ahead_gb=variables.read_count("COMFYPIN_READ_AHEAD_GB", default=0) if names_read_ahead else None,
            api_nodes=None if api_nodes in (None, "auto") else api_nodes == "on",
        )
