"""Plans a build before it starts: layers with their sizes, which of them exist already, the disk needed (pure)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from comfypin.digest import Digest, JsonValue, canonical_json
from comfypin.image.build_context import BuildContext, ImageOptions, bakes_an_env
from comfypin.lock.codec import lock_digest, node_to_json, package_to_json, repo_to_json
from comfypin.lock.debian_packages import propose_packages
from comfypin.lock.model import Lock, PackagePin, RepoPin
from comfypin.lock.torch import is_torch_family
from comfypin.plurals import format_count, format_limit

# Rough sizes for the plan, which says "about".
SOURCES_BYTES, NODE_BYTES, COMFYPIN_BYTES, SYSTEM_PACKAGE_BYTES = 60_000_000, 10_000_000, 200_000_000, 30_000_000
# What Runpod's own builder takes; https://docs.runpod.io/serverless/workers/github-integration
RUNPOD_BUILD_BYTES = 80_000_000_000
# Runpod's GitHub builds stop after this.
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
    """Holds the layers of an image in order.

    `lacking` are OS packages with libraries that the lock's packages need and `system_packages` does not name.
    """

    release: str
    base: str
    layers: tuple[PlannedLayer, ...]
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        """Return what the image lacks, and what Runpod will do with one of this size, as sentences."""
        remarks = []
        if self.lacking:
            library_list = "; ".join(
                f"{library_name} for {', '.join(packages)}" for library_name, packages in self.lacking.items()
            )
            remarks.append(
                f"Packages need libraries that this image lacks: {library_list}. Lock them: comfypin lock upgrade "
                "--system-package auto."
            )
        if self.size_bytes > RUNPOD_BUILD_BYTES:
            remarks.append(
                f"Runpod's GitHub builds take {format_limit(RUNPOD_BUILD_BYTES)} and {RUNPOD_BUILD_MINUTES} minutes: "
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
            "lacking": {library_name: list(packages) for library_name, packages in self.lacking.items()},
            "remarks": list(self.remarks),
        }


def make_image_plan(
    lock: Lock,
    options: ImageOptions,
    build_context: BuildContext,
    *,
    target: str | None = None,
    size_of: Callable[[PackagePin], int] = lambda package_pin: 0,
    known: Mapping[str, str] | None = None,
) -> ImagePlan:
    """Return the plan of a build; `size_of` gives a package's size, `known` the inputs of an existing image."""
    base_image = build_context.arguments["BASE"]
    system_packages = build_context.arguments["SYSTEM_PACKAGES"].split()
    layers = [
        _make_layer(
            "system",
            _shorten_names("OS package", system_packages),
            SYSTEM_PACKAGE_BYTES * len(system_packages),
            [base_image, *system_packages],
        )
    ]
    if bakes_an_env(lock, options.bake) and lock.comfyui is not None:
        layers += _make_env_layers(lock, lock.comfyui, base_image, target, size_of)
    if options.bake == "env+models":
        layers += [
            _make_layer(
                f"model {package_pin.name}",
                package_pin.target_path,
                package_pin.size_bytes or 0,
                str(package_pin.sha256),
            )
            for package_pin in lock.models
        ]
    layers.append(_make_layer("comfypin", "comfypin and what it needs", COMFYPIN_BYTES, _own_digests(build_context)))
    layers.append(
        _make_layer(
            "lock", f"the lock and {format_count(len(options.workflows), 'workflow')}", 0, str(lock_digest(lock))
        )
    )
    return ImagePlan(
        release=lock.version_name,
        base=base_image,
        layers=_mark_cached(layers, known or {}),
        lacking=propose_packages(lock.python.libraries, system_packages) if lock.engine.kind == "comfyui" else {},
    )


def _own_digests(build_context: BuildContext) -> JsonValue:
    # Every byte of comfypin that enters the layer: the same version from a checkout may differ.
    digests: list[JsonValue] = [
        Digest.of(file_content).hex
        for layer_name, file_content in build_context.files.items()
        if layer_name.startswith(("steps/", "requirements/"))
    ]
    digests += [
        Digest.of_file(copied_path).hex for copied_path in build_context.copies.values() if copied_path.suffix == ".whl"
    ]
    return digests


def _make_env_layers(
    lock: Lock, comfyui: RepoPin, base_image: str, target: str | None, size_of: Callable[[PackagePin], int]
) -> Iterator[PlannedLayer]:
    target_packages = [package_pin for package_pin in lock.python.packages if package_pin.target in (None, target)]
    # torch apart: it is most of the bytes, and many releases share it.
    for layer_name, package_pins in (
        ("torch", [package_pin for package_pin in target_packages if is_torch_family(package_pin.name)]),
        ("packages", [package_pin for package_pin in target_packages if not is_torch_family(package_pin.name)]),
    ):
        all_names = _shorten_names("package", [package_pin.name for package_pin in package_pins])
        yield _make_layer(
            layer_name, all_names, sum(map(size_of, package_pins)), [base_image, *map(package_to_json, package_pins)]
        )
    yield _make_layer("comfyui", f"ComfyUI at {comfyui.commit}", SOURCES_BYTES, repo_to_json(comfyui))
    node_folders = [node_pin.folder for node_pin in lock.custom_nodes]
    layer_inputs = [node_to_json(node_pin) for node_pin in lock.custom_nodes]
    yield _make_layer("nodes", _shorten_names("node", node_folders), NODE_BYTES * len(node_folders), layer_inputs)


def render_label(image_plan: ImagePlan) -> str:
    """Return the label that tells the next plan which layers exist."""
    # A label's words are separated by spaces, and model names may contain some.
    return " ".join(f"{layer.name.replace(' ', '_')}={layer.inputs}" for layer in image_plan.layers)


def read_label(label: str) -> dict[str, str]:
    """Return the inputs by layer from a label."""
    label_pairs = (label_word.rpartition("=") for label_word in label.split())
    return {layer_name: layer_inputs for layer_name, _, layer_inputs in label_pairs}


def _mark_cached(layers: Sequence[PlannedLayer], known_inputs: Mapping[str, str]) -> tuple[PlannedLayer, ...]:
    """Mark the layers that exist: those whose inputs, and the inputs of every layer below, are the same."""
    marked_layers = []
    is_same = True
    for layer in layers:
        # Builders reuse a layer only on top of the same layers, so the first change ends it.
        is_same = is_same and known_inputs.get(layer.name.replace(" ", "_")) == layer.inputs
        marked_layers.append(
            PlannedLayer(
                name=layer.name, text=layer.text, size_bytes=layer.size_bytes, inputs=layer.inputs, cached=is_same
            )
        )
    return tuple(marked_layers)


def _make_layer(layer_name: str, description: str, size_bytes: int, layer_inputs: JsonValue) -> PlannedLayer:
    # 64 bits: a label has to hold dozens of them, and nobody attacks it.
    inputs_digest = Digest.of(canonical_json(layer_inputs)).hex[:16]
    return PlannedLayer(name=layer_name, text=description, size_bytes=size_bytes, inputs=inputs_digest)


def _shorten_names(thing_name: str, all_names: Sequence[str]) -> str:
    if not all_names:
        return f"no {thing_name}s"
    omitted_note = f" and {len(all_names) - 4} more" if len(all_names) > 4 else ""
    return f"{', '.join(all_names[:4])}{omitted_note}"
