"""Where a model goes: `target_path` with its variables, kept inside the two trees it may name."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comfypin.atomic_files import contained_path
from comfypin.lock.model import Lock, ModelPin
from comfypin.models.errors import TargetRefused

STORE_FOLDER = ".comfypin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The trees that models live in; `comfy_home` is None where there is no ComfyUI."""

    models_dir: Path
    comfy_home: Path | None = None

    def target(self, pin: ModelPin) -> Path:
        """The path of a pin's file. Raises `TargetRefused` for every path that could leave the trees."""
        root, relative = self._root(pin)
        if ".." in relative.parts or "\0" in pin.target_path:
            raise _refused(pin, f"it does not stay inside {root}")
        if STORE_FOLDER in relative.parts:
            raise _refused(pin, f"{STORE_FOLDER} belongs to the store")
        if relative.name == "" or pin.target_path.endswith("/"):
            raise _refused(pin, "it names a folder, not a file")
        try:
            # Only the folder is followed: the file itself is a link into the store, which may be on another volume.
            folder = contained_path(root, relative.parent) if relative.parent != PurePosixPath() else root
        except ValueError as error:
            raise _refused(pin, str(error)) from error
        except (OSError, RuntimeError) as error:
            raise _refused(pin, f"its folder cannot be followed ({error})") from error
        if STORE_FOLDER in folder.resolve().relative_to(root.resolve()).parts:
            raise _refused(pin, f"its folder is a link into {STORE_FOLDER}")
        return folder / relative.name

    def _root(self, pin: ModelPin) -> tuple[Path, PurePosixPath]:
        text = pin.target_path
        for variable, root in (("MODELS_DIR", self.models_dir), ("COMFY_HOME", self.comfy_home)):
            for spelled in (f"${variable}/", f"${{{variable}}}/"):
                if text.startswith(spelled):
                    if root is None:
                        raise _refused(pin, f"{variable} is not known here")
                    return root, PurePosixPath(text.removeprefix(spelled))
        if text.startswith("$"):
            raise _refused(pin, "it begins with another variable than $MODELS_DIR or $COMFY_HOME")
        path = PurePosixPath(text)
        if path.is_absolute():
            return self._absolute(pin, path)
        return self.models_dir, path

    def _absolute(self, pin: ModelPin, path: PurePosixPath) -> tuple[Path, PurePosixPath]:
        for root in (self.models_dir, self.comfy_home):
            if root is not None and path.is_relative_to(root.absolute()):
                return root, path.relative_to(root.absolute())
        raise _refused(pin, "it is outside MODELS_DIR and COMFY_HOME; write it as $MODELS_DIR/folder/file")


def targets(lock: Lock, places: Places) -> list[tuple[ModelPin, Path]]:
    """Every pin with its path. Raises `TargetRefused`, also where two pins want different bytes at one path."""
    found: dict[Path, ModelPin] = {}
    for pin in lock.models:
        path = places.target(pin)
        other = found.setdefault(path, pin)
        if other is not pin and other.sha256 != pin.sha256:
            raise _refused(pin, f"the model {other.name} wants other bytes at the same path")
    return [(pin, path) for path, pin in found.items()]


def _refused(pin: ModelPin, reason: str) -> TargetRefused:
    return TargetRefused(name=pin.name, target=pin.target_path, reason=reason)
