"""What a build will make, before it is begun: layers with sizes, what is there already, the disk needed (pure)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from comfypin.digest import Digest, JsonValue, canonical_json
from comfypin.image.context import Context, Wish, bakes_an_env
from comfypin.lock.codec import lock_digest, node_to_json, package_to_json, repo_to_json
from comfypin.lock.model import Lock, PackagePin
from comfypin.lock.torch import is_torch_family

SOURCES_BYTES, NODE_BYTES, COMFYPIN_BYTES, SYSTEM_PACKAGE_BYTES = 60_000_000, 10_000_000, 200_000_000, 30_000_000
# What RunPod's own builder takes; https://docs.runpod.io/serverless/workers/github-integration
RUNPOD_BUILD_BYTES = 80_000_000_000
RUNPOD_BUILD_MINUTES = 30
LABEL = "com.comfypin.inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: what is in it, about how large, the digest of what it is made from, whether it is there already."""

    name: str
    text: str
    size_bytes: int
    inputs: str
    cached: bool = False

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "layer": self.name,
            "text": self.text,
            "about_bytes": self.size_bytes,
            "inputs": self.inputs,
            "cached": self.cached,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """The layers in order, and what is to be known about them."""

    release: str
    base: str
    layers: tuple[Layer, ...]

    @property
    def size_bytes(self) -> int:
        """About how large all of it is, over its base."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def disk_bytes(self) -> int:
        """The disk that building takes: what is new stands in its stage, in its layer and in the cache of downloads."""
        return 500_000_000 + 3 * sum(layer.size_bytes for layer in self.layers if not layer.cached)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What RunPod will say to an image of this size."""
        remarks = []
        if self.size_bytes > RUNPOD_BUILD_BYTES:
            remarks.append(
                f"RunPod's GitHub builds take {RUNPOD_BUILD_BYTES / 1e9:.0f} GB and {RUNPOD_BUILD_MINUTES} minutes: "
                "build this elsewhere and push it, or leave models on a network volume (--bake env)."
            )
        elif self.size_bytes > RUNPOD_BUILD_BYTES / 4:
            remarks.append("Every new worker pulls all of this first; models on a network volume (--bake env) are not.")
        remarks.append(
            f"Give templates a container disk of {max(10, int(self.size_bytes / 1e9 * 1.2) + 5)} GB or more."
        )
        return tuple(remarks)

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "release": self.release,
            "base": self.base,
            "about_bytes": self.size_bytes,
            "disk_bytes": self.disk_bytes,
            "layers": [layer.to_json() for layer in self.layers],
            "remarks": list(self.remarks),
        }


def make_plan(
    lock: Lock,
    wish: Wish,
    context: Context,
    *,
    target: str | None = None,
    size_of: Callable[[PackagePin], int] = lambda pin: 0,
    known: Mapping[str, str] | None = None,
) -> ImagePlan:
    """The plan of a build; `size_of` says how large a package is, `known` what an image here was made from."""
    base = context.arguments["BASE"]
    system = context.arguments["SYSTEM_PACKAGES"].split()
    layers = [_layer("system", _named("OS package", system), SYSTEM_PACKAGE_BYTES * len(system), [base, *system])]
    if bakes_an_env(lock, wish.bake) and lock.comfyui is not None:
        packages = [pin for pin in lock.python.packages if pin.target in (None, target)]
        for name, pins in (
            ("torch", [pin for pin in packages if is_torch_family(pin.name)]),
            ("packages", [pin for pin in packages if not is_torch_family(pin.name)]),
        ):
            size = sum(map(size_of, pins))
            layers.append(
                _layer(name, _named("package", [p.name for p in pins]), size, [base, *map(package_to_json, pins)])
            )
        layers.append(_layer("comfyui", f"ComfyUI at {lock.comfyui.commit}", SOURCES_BYTES, repo_to_json(lock.comfyui)))
        nodes = [node.folder for node in lock.custom_nodes]
        inputs = [node_to_json(node) for node in lock.custom_nodes]
        layers.append(_layer("nodes", _named("node", nodes), NODE_BYTES * len(nodes), inputs))
    if wish.bake == "env+models":
        layers += [
            _layer(f"model {pin.name}", pin.target_path, pin.size_bytes or 0, str(pin.sha256)) for pin in lock.models
        ]
    own: list[JsonValue] = [
        Digest.of(data).hex for name, data in context.files.items() if name.startswith(("steps/", "requirements/"))
    ]
    own += [Digest.of_file(path).hex for path in context.copies.values() if path.suffix == ".whl"]
    layers.append(_layer("comfypin", "comfypin and what it needs", COMFYPIN_BYTES, own))
    layers.append(_layer("lock", f"the lock and {len(wish.workflows)} workflows", 0, str(lock_digest(lock))))
    return ImagePlan(release=lock.version_name, base=base, layers=_marked(layers, known or {}))


def inputs_label(plan: ImagePlan) -> str:
    """What an image is labelled with, so that the next plan knows what is there."""
    return " ".join(f"{layer.name.replace(' ', '_')}={layer.inputs}" for layer in plan.layers)


def read_label(label: str) -> dict[str, str]:
    """The inputs by layer that a label says."""
    pairs = (word.rpartition("=") for word in label.split())
    return {name: inputs for name, _, inputs in pairs}


def _marked(layers: Sequence[Layer], known: Mapping[str, str]) -> tuple[Layer, ...]:
    """A layer is there where it and every one under it was made from the same."""
    marked = []
    same = True
    for layer in layers:
        same = same and known.get(layer.name.replace(" ", "_")) == layer.inputs
        marked.append(
            Layer(name=layer.name, text=layer.text, size_bytes=layer.size_bytes, inputs=layer.inputs, cached=same)
        )
    return tuple(marked)


def _layer(name: str, text: str, size_bytes: int, inputs: JsonValue) -> Layer:
    digest = Digest.of(canonical_json(inputs)).hex[:16]
    return Layer(name=name, text=text, size_bytes=size_bytes, inputs=digest)


def _named(what: str, names: Sequence[str]) -> str:
    if not names:
        return f"no {what}s"
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}"
