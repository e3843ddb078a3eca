"""Plans a build before it starts: layers with their sizes, which of them exist already, the disk needed (pure)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from comfypin.digest import Digest, JsonValue, canonical_json
from comfypin.image.context import BuildContext, ImageOptions, bakes_an_env
from comfypin.lock.codec import lock_digest, node_to_json, package_to_json, repo_to_json
from comfypin.lock.model import Lock, PackagePin, RepoPin
from comfypin.lock.torch import of_torch

# Rough sizes for the plan, which says "about".
SOURCES_BYTES, NODE_BYTES, COMFYPIN_BYTES, SYSTEM_PACKAGE_BYTES = 60_000_000, 10_000_000, 200_000_000, 30_000_000
# What RunPod's own builder takes; https://docs.runpod.io/serverless/workers/github-integration
RUNPOD_BUILD_BYTES = 80_000_000_000
RUNPOD_BUILD_MINUTES = 30
INPUTS_LABEL = "com.comfypin.inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLayer:
    """Describes one layer: its content, its approximate size, the digest of its inputs, whether it exists already."""

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
    """Holds the layers of an image in order."""

    release: str
    base: str
    layers: tuple[PlannedLayer, ...]

    @property
    def size_bytes(self) -> int:
        """Return the approximate size of all layers, without the base."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def disk_bytes(self) -> int:
        """Return the disk that building takes: a new layer is in its stage, in the image and in the download cache."""
        # Half a GB for the base and the builder's own temporary files.
        return 500_000_000 + 3 * sum(layer.size_bytes for layer in self.layers if not layer.cached)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Return what RunPod will do with an image of this size, as sentences."""
        remarks = []
        if self.size_bytes > RUNPOD_BUILD_BYTES:
            remarks.append(
                f"RunPod's GitHub builds take {RUNPOD_BUILD_BYTES / 1e9:.0f} GB and {RUNPOD_BUILD_MINUTES} minutes: "
                "build this elsewhere and push it, or leave models on a network volume (--bake env)."
            )
        elif self.size_bytes > RUNPOD_BUILD_BYTES / 4:
            remarks.append("Every new worker first pulls all of this, but no models on a network volume (--bake env).")
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


def make_image_plan(
    lock: Lock,
    wish: ImageOptions,
    context: BuildContext,
    *,
    target: str | None = None,
    size_of: Callable[[PackagePin], int] = lambda pin: 0,
    known: Mapping[str, str] | None = None,
) -> ImagePlan:
    """Return the plan of a build; `size_of` gives a package's size, `known` the inputs of an existing image."""
    base = context.arguments["BASE"]
    system = context.arguments["SYSTEM_PACKAGES"].split()
    layers = [
        _make_layer("system", _shorten_names("OS package", system), SYSTEM_PACKAGE_BYTES * len(system), [base, *system])
    ]
    if bakes_an_env(lock, wish.bake) and lock.comfyui is not None:
        layers += _make_env_layers(lock, lock.comfyui, base, target, size_of)
    if wish.bake == "env+models":
        layers += [
            _make_layer(f"model {pin.name}", pin.target_path, pin.size_bytes or 0, str(pin.sha256))
            for pin in lock.models
        ]
    layers.append(_make_layer("comfypin", "comfypin and what it needs", COMFYPIN_BYTES, _own_digests(context)))
    layers.append(_make_layer("lock", f"the lock and {len(wish.workflows)} workflows", 0, str(lock_digest(lock))))
    return ImagePlan(release=lock.version_name, base=base, layers=_mark_cached(layers, known or {}))


def _own_digests(context: BuildContext) -> JsonValue:
    # Every byte of comfypin that enters the layer: the same version from a checkout may differ.
    digests: list[JsonValue] = [
        Digest.of(data).hex for name, data in context.files.items() if name.startswith(("steps/", "requirements/"))
    ]
    digests += [Digest.of_file(path).hex for path in context.copies.values() if path.suffix == ".whl"]
    return digests


def _make_env_layers(
    lock: Lock, comfyui: RepoPin, base: str, target: str | None, size_of: Callable[[PackagePin], int]
) -> Iterator[PlannedLayer]:
    packages = [pin for pin in lock.python.packages if pin.target in (None, target)]
    # torch apart: it is most of the bytes, and many releases share it.
    for name, pins in (
        ("torch", [pin for pin in packages if of_torch(pin.name)]),
        ("packages", [pin for pin in packages if not of_torch(pin.name)]),
    ):
        names = _shorten_names("package", [pin.name for pin in pins])
        yield _make_layer(name, names, sum(map(size_of, pins)), [base, *map(package_to_json, pins)])
    yield _make_layer("comfyui", f"ComfyUI at {comfyui.commit}", SOURCES_BYTES, repo_to_json(comfyui))
    nodes = [node.folder for node in lock.custom_nodes]
    inputs = [node_to_json(node) for node in lock.custom_nodes]
    yield _make_layer("nodes", _shorten_names("node", nodes), NODE_BYTES * len(nodes), inputs)


def render_label(plan: ImagePlan) -> str:
    """Return the label that tells the next plan which layers exist."""
    # A label's words are separated by spaces, and model names may contain some.
    return " ".join(f"{layer.name.replace(' ', '_')}={layer.inputs}" for layer in plan.layers)


def read_label(label: str) -> dict[str, str]:
    """Return the inputs by layer from a label."""
    pairs = (word.rpartition("=") for word in label.split())
    return {name: inputs for name, _, inputs in pairs}


def _mark_cached(layers: Sequence[PlannedLayer], known: Mapping[str, str]) -> tuple[PlannedLayer, ...]:
    """Mark the layers that exist: those whose inputs, and the inputs of every layer below, are the same."""
    marked = []
    same = True
    for layer in layers:
        # Builders reuse a layer only on top of the same layers, so the first change ends it.
        same = same and known.get(layer.name.replace(" ", "_")) == layer.inputs
        marked.append(
            PlannedLayer(
                name=layer.name, text=layer.text, size_bytes=layer.size_bytes, inputs=layer.inputs, cached=same
            )
        )
    return tuple(marked)


def _make_layer(name: str, text: str, size_bytes: int, inputs: JsonValue) -> PlannedLayer:
    # 64 bits: a label has to hold dozens of them, and nobody attacks it.
    digest = Digest.of(canonical_json(inputs)).hex[:16]
    return PlannedLayer(name=name, text=text, size_bytes=size_bytes, inputs=digest)


def _shorten_names(what: str, names: Sequence[str]) -> str:
    if not names:
        return f"no {what}s"
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}"
