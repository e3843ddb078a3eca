"""The environment as a whole: taken once by the command line, each part of it parsed when it is first asked for."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from comfypin.settings.entry import EntrySettings
from comfypin.settings.env import EnvSettings
from comfypin.settings.machine import MachineSettings
from comfypin.settings.models import ModelSettings
from comfypin.settings.runpod import RunpodSettings
from comfypin.settings.server import ServerSettings
from comfypin.settings.state import state_folder
from comfypin.settings.variables import Variables


class Settings:
    """What the environment says; docs/environment.md lists the variables.

    A part is parsed once, when it is first asked for: a mistake in a variable stops only the commands that need it.
    Rooms with settings of their own (each store, outputs, proxies) are given `variables` by the wiring; child
    processes inherit them.
    """

    def __init__(self, variables: Mapping[str, str], *, machine: MachineSettings | None = None) -> None:
        """Take a copy of the environment: what changes in it later is not seen. `machine` stands in for its part."""
        self.variables = Variables(variables)
        self._machine = machine

    def with_flags(self, *, comfy_home: Path | None = None, models_dir: Path | None = None) -> "Settings":
        """Return the settings with what flags say in place of the environment."""
        return Settings(self.variables, machine=self.machine.with_flags(comfy_home=comfy_home, models_dir=models_dir))

    @cached_property
    def machine(self) -> MachineSettings:
        """Which release this machine runs, and where ComfyUI and its models lie."""
        return self._machine or MachineSettings.from_variables(self.variables)

    @cached_property
    def env(self) -> EnvSettings:
        """Where realizing finds things beside the lock."""
        return EnvSettings.from_variables(self.variables)

    @cached_property
    def models(self) -> ModelSettings:
        """How models are brought."""
        return ModelSettings.from_variables(self.variables)

    @cached_property
    def runpod(self) -> RunpodSettings:
        """How Runpod is reached."""
        return RunpodSettings.from_variables(self.variables)

    @cached_property
    def server(self) -> ServerSettings:
        """How the HTTP server is reached."""
        return ServerSettings.from_variables(self.variables)

    @cached_property
    def entry(self) -> EntrySettings:
        """What a container is to do when no command is given."""
        return EntrySettings.from_variables(self.variables)

    @cached_property
    def state_dir(self) -> Path:
        """Where state that needs a local disk lies."""
        return state_folder(self.variables)

    def pick_variables(self, variable_names: Iterable[str]) -> dict[str, str]:
        """Return the variables that a file names (registry credentials), those that are set. Secrets: never printed."""
        return {
            variable_name: raw_value
            for variable_name in variable_names
            if (raw_value := self.variables.get(variable_name))
        }
