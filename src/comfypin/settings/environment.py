"""The whole environment: copied once by the command line, each part parsed when it is first needed."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from comfypin.settings.client import ClientSettings
from comfypin.settings.entry import EntrySettings
from comfypin.settings.env import EnvSettings
from comfypin.settings.fleet import FleetSettings
from comfypin.settings.machine import MachineSettings
from comfypin.settings.models import ModelSettings
from comfypin.settings.runpod import RunpodSettings
from comfypin.settings.server import ServerSettings
from comfypin.settings.state import state_folder
from comfypin.settings.variables import Variables


class Settings:
    """Holds the environment; docs/environment.md lists the variables.

    Each part is parsed once, when it is first needed: a mistake in a variable stops only the commands that need it.
    Packages with their own settings (each store, outputs, proxies) get `variables` from the wiring; child
    processes inherit them.
    """

    def __init__(self, variables: Mapping[str, str], *, machine: MachineSettings | None = None) -> None:
        """Copy the environment: later changes to it are not seen. `machine` replaces what they say about it."""
        # Child processes get the same copy, whatever a library has set since.
        self.variables = Variables(variables)
        self._machine = machine

    def with_flags(
        self, *, comfy_home: Path | None = None, models_dir: Path | None = None, comfy_python: Path | None = None
    ) -> "Settings":
        """Return the settings with the values of flags instead of the environment's."""
        machine = self.machine.with_flags(comfy_home=comfy_home, models_dir=models_dir, comfy_python=comfy_python)
        return Settings(self.variables, machine=machine)

    @cached_property
    def machine(self) -> MachineSettings:
        """Return this machine's release, and its folders of ComfyUI and the models."""
        # Flags of the command line come before the environment.
        return self._machine or MachineSettings.from_variables(self.variables)

    @cached_property
    def env(self) -> EnvSettings:
        """Return where realizing finds what it needs besides the lock."""
        return EnvSettings.from_variables(self.variables)

    @cached_property
    def models(self) -> ModelSettings:
        """Return how models are fetched."""
        return ModelSettings.from_variables(self.variables)

    @cached_property
    def runpod(self) -> RunpodSettings:
        """Return how Runpod is reached."""
        return RunpodSettings.from_variables(self.variables)

    @cached_property
    def server(self) -> ServerSettings:
        """Return how the HTTP server is reached."""
        return ServerSettings.from_variables(self.variables)

    @cached_property
    def fleet(self) -> FleetSettings:
        """Return how the queue of a fleet is reached."""
        return FleetSettings.from_variables(self.variables)

    @cached_property
    def client(self) -> ClientSettings:
        """Return which server jobs are sent to."""
        return ClientSettings.from_variables(self.variables)

    @cached_property
    def entry(self) -> EntrySettings:
        """Return what a container does if no command is given."""
        return EntrySettings.from_variables(self.variables)

    @cached_property
    def state_dir(self) -> Path:
        """Return the folder for state that needs a local disk."""
        return state_folder(self.variables)

    def pick_variables(self, variable_names: Iterable[str]) -> dict[str, str]:
        """Return those of the variables that are set (a file names them: registry credentials). Never print them."""
        return {
            variable_name: raw_value
            for variable_name in variable_names
            if (raw_value := self.variables.get(variable_name))
        }
