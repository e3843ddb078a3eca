"""Resolves `target_path` with its variables to a path inside the two trees that it may name."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comfypin.atomic_files import contained_path
from comfypin.lock.model import Lock, ModelPin
from comfypin.models.errors import TargetRefused

# Where the store is below MODELS_DIR unless a volume holds it.
STORE_FOLDER = ".comfypin"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRoots:
    """The trees that models go to; `comfy_home` is None if there is no ComfyUI."""

    models_dir: Path
    comfy_home: Path | None = None

    def target_path(self, model_pin: ModelPin) -> Path:
        """Return the path of a pin's file. Raises `TargetRefused` for every path that could leave the trees."""
        tree_root, relative_path = self._root_of(model_pin)
        # Refused even if it stays inside: links could make it mean something else.
        if ".." in relative_path.parts or "\0" in model_pin.target_path:
            raise _refuse_target(model_pin, f"it does not stay inside {tree_root}")
        if STORE_FOLDER in relative_path.parts:
            raise _refuse_target(model_pin, f"{STORE_FOLDER} belongs to the store")
        if relative_path.name == "" or model_pin.target_path.endswith("/"):
            raise _refuse_target(model_pin, "it names a folder, not a file")
        try:
            # Only the folder is followed: the file itself is a link into the store, which may be on another volume.
            target_folder = (
                contained_path(tree_root, relative_path.parent)
                if relative_path.parent != PurePosixPath()
                else tree_root
            )
        except ValueError as error:
            raise _refuse_target(model_pin, str(error)) from error
        except (OSError, RuntimeError) as error:
            raise _refuse_target(model_pin, f"its folder cannot be followed ({error})") from error
        if STORE_FOLDER in target_folder.resolve().relative_to(tree_root.resolve()).parts:
            raise _refuse_target(model_pin, f"its folder is a link into {STORE_FOLDER}")
        return target_folder / relative_path.name

    def _root_of(self, model_pin: ModelPin) -> tuple[Path, PurePosixPath]:
        path_text = model_pin.target_path
        for variable, tree_root in (("MODELS_DIR", self.models_dir), ("COMFY_HOME", self.comfy_home)):
            for variable_prefix in (f"${variable}/", f"${{{variable}}}/"):
                if path_text.startswith(variable_prefix):
                    if tree_root is None:
                        raise _refuse_target(model_pin, f"{variable} is not known here")
                    return tree_root, PurePosixPath(path_text.removeprefix(variable_prefix))
        if path_text.startswith("$"):
            raise _refuse_target(model_pin, "it begins with another variable than $MODELS_DIR or $COMFY_HOME")
        relative_path = PurePosixPath(path_text)
        if relative_path.is_absolute():
            return self._split_absolute(model_pin, relative_path)
        return self.models_dir, relative_path

    def _split_absolute(self, model_pin: ModelPin, relative_path: PurePosixPath) -> tuple[Path, PurePosixPath]:
        for tree_root in (self.models_dir, self.comfy_home):
            if tree_root is not None and relative_path.is_relative_to(tree_root.absolute()):
                return tree_root, relative_path.relative_to(tree_root.absolute())
        raise _refuse_target(model_pin, "it is outside MODELS_DIR and COMFY_HOME; write it as $MODELS_DIR/folder/file")


def list_targets(lock: Lock, places: TargetRoots) -> list[tuple[ModelPin, Path]]:
    """Return every pin with its path. Raises `TargetRefused`, also if two pins want different bytes at one path."""
    pins_by_path: dict[Path, ModelPin] = {}
    for model_pin in lock.models:
        relative_path = places.target_path(model_pin)
        other_pin = pins_by_path.setdefault(relative_path, model_pin)
        if other_pin is not model_pin and other_pin.sha256 != model_pin.sha256:
            raise _refuse_target(model_pin, f"the model {other_pin.name} wants other bytes at the same path")
    return [(pin, file_path) for file_path, pin in pins_by_path.items()]


def _refuse_target(model_pin: ModelPin, reason: str) -> TargetRefused:
    return TargetRefused(name=model_pin.name, target=model_pin.target_path, reason=reason)
