"""What the pods of `comfypin fleet scale` are: the flags that say so, and what makes, lists and removes them.

The queue's address, its login and all other secrets reach pods as secrets of the platform; nothing here prints them.
"""

import argparse
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr
from comfypin.cli.flag_values import parse_seconds, whole_number
from comfypin.cli.runpod.variable_flags import plain_variables, secret_wishes
from comfypin.errors import ConfigError, LockError, UsageError

if TYPE_CHECKING:
    from comfypin.lock.model import Lock
    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.nats.rolls import Rolls
    from comfypin.runpod.fleet_pods import FleetPod, GpuOffer, PodWish
    from comfypin.runpod.management_api import ManagementApi
    from comfypin.runpod.release_facts import ReleaseFacts
    from comfypin.runpod.up.plan import SecretWish
    from comfypin.settings.environment import Settings

# What is available changes within minutes; a pass comes every few seconds.
_CATALOG_GOOD_FOR_S = 300.0
# Each is asked for its lowest bid.
_MOST_SPOT_OFFERS = 8
_LOGINS = ("COMFYPIN_NATS_TOKEN", "COMFYPIN_NATS_USER", "COMFYPIN_NATS_PASSWORD")
# Secrets of the platform are variables, never files: what the files hold travels.
_LOGIN_FILES = ("COMFYPIN_NATS_CREDS", "COMFYPIN_NATS_NKEY", "COMFYPIN_NATS_CA")
_LOCAL = ("//127.", "//localhost", "//[::1]")


def add_pod_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    work = parser.add_argument_group("what pods do")
    work.add_argument(
        "--release",
        metavar="FILE|NAME",
        action="append",
        default=[],
        help="a release that gets pods, once or more (default: LOCK_PATH, COMFY_VERSION_NAME)",
    )
    work.add_argument("--class", dest="gpu_class", metavar="NAME", default="any", help="the class of the workers (any)")
    work.add_argument(
        "--idle-exit", type=parse_seconds, default=300, metavar="S", help="seconds until an idle worker leaves (300)"
    )
    work.add_argument(
        "--grace", type=whole_number(1, 100_000), default=20, metavar="S", help="--grace of the workers (20)"
    )
    work.add_argument("--pod-queue", metavar="ADDRESS", help="the queue's address for pods, if it is another there")
    work.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], help="a variable of the workers")
    work.add_argument(
        "--secret",
        metavar="NAME[=SECRET]",
        action="append",
        default=[],
        help="a variable whose value is a secret of Runpod: made from this machine's variable, or one that is there",
    )
    work.add_argument("--renew-secrets", action="store_true", help="replace secrets that were made before")
    work.add_argument("--lock-url", metavar="URL", help="where pods read the lock if it is too large for a variable")
    place_flags = parser.add_argument_group("where")
    place_flags.add_argument("--name", metavar="NAME", default="fleet", help="the fleet's name on Runpod (fleet)")
    place_flags.add_argument("--image", metavar="NAME@sha256:...", help="the worker image (default: comfypin's own)")
    place_flags.add_argument(
        "--gpu", metavar="ID", action="append", default=[], help="a GPU type to try (default: the cheapest that fits)"
    )
    place_flags.add_argument(
        "--cloud", choices=("secure", "community"), default="secure", help="Runpod's cloud (secure)"
    )
    place_flags.add_argument(
        "--data-center", metavar="ID", action="append", default=[], help="a data centre, such as EU-RO-1"
    )
    place_flags.add_argument("--spot", action="store_true", help="make spot pods: cheaper, and taken away at any time")
    place_flags.add_argument(
        "--bid",
        type=_parse_dollars,
        metavar="DOLLARS",
        help="what a spot GPU may cost an hour (default: the lowest bid)",
    )
    place_flags.add_argument(
        "--volume", metavar="ID", help="a network volume with models and packs, mounted at /workspace"
    )
    place_flags.add_argument(
        "--disk", type=whole_number(1, 4096), metavar="GB", help="the disk (default: from the lock)"
    )
    place_flags.add_argument("--registry", metavar="ID", help="Runpod's registry login for a private image")
    place_flags.add_argument(
        "--start-timeout",
        type=parse_seconds,
        metavar="S",
        help="a pod whose worker does not come within so long is removed (default: by what the release downloads)",
    )


def _parse_dollars(price_text: str) -> float:
    try:
        return parse_seconds(price_text)  # any number above 0
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{price_text!r} is not a number of dollars above 0") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownRelease:
    """A release whose lock is here: its facts, the image that runs it, and the lock as text."""

    facts: "ReleaseFacts"
    image: str
    carried_lock: str


@dataclass(slots=True, kw_only=True)
class PodMaker:
    """Makes pods for one fleet and class. `releases` are those that were named, as digest and name.

    `queue_id` is what tells the fleet's queue from others; it is read before pods are.
    """

    arguments: argparse.Namespace
    management_api: "ManagementApi"
    wishes: "tuple[SecretWish, ...]"
    values: Mapping[str, str] = field(repr=False)
    releases: tuple[tuple[str, str], ...]
    known: dict[str, _KnownRelease]
    holder: str = field(default_factory=lambda: secrets.token_hex(8))
    queue_id: str = ""
    _offers: "dict[str, tuple[float, tuple[GpuOffer, ...]]]" = field(default_factory=dict)

    @property
    def fleet(self) -> str:
        """Return the fleet's name on Runpod."""
        return str(self.arguments.name)

    @property
    def gpu_class(self) -> str:
        """Return the class of the workers."""
        return str(self.arguments.gpu_class)

    @property
    def start_timeout_s(self) -> float:
        """Return how long a pod may take until it works: what the largest release downloads, and the image before."""
        return max(1800.0, *(2.0 * known_release.facts.init_timeout_s for known_release in self.known.values()))

    async def learn(self, fleet: "Fleet", release: str, rolls: "Rolls") -> bool:
        """Return whether the lock of a release is known, here or in the fleet, where workers and rolls keep it."""
        from comfypin.lock.carried import read_carried_lock
        from comfypin.lock.codec import parse_lock
        from comfypin.queue.nats.releases import read_lock

        if release not in self.known:
            carried_lock = await read_lock(fleet.releases, release)
            if carried_lock is None:
                return False
            try:
                lock_bytes = read_carried_lock(carried_lock, where="the fleet")
                lock = parse_lock(lock_bytes, where="the fleet's lock").lock
            except LockError as failure:
                # Workers may write there; the pods of other releases should not wait for it.
                print_on_stderr(f"comfypin: no pods of {release}: {failure.message}")
                return False
            image = next((roll.image for roll in rolls.current.values() if roll.new == release), None)
            key, known = _know(lock, self.arguments, image)
            # Workers may write there: only the lock of this digest is the release's.
            if key != release:
                return False
            self.known[release] = known
        return True

    def list_pods(self) -> "tuple[FleetPod, ...]":
        """Return the fleet's pods. Raises `UsageError` if another queue's pods have its name."""
        from comfypin.runpod.fleet_pods import list_fleet_pods

        pods = list_fleet_pods(self.management_api.list_resources("pod"), self.fleet)
        # Their workers are unknown here, so that they would be removed as silent ones while they run jobs.
        foreign_pod = next((pod for pod in pods if pod.queue_id not in ("", self.queue_id)), None)
        if foreign_pod is not None:
            raise UsageError(
                f"Pod {foreign_pod.name} ({foreign_pod.id}) works for another queue under the name {self.fleet}; give "
                "each fleet of the account a name of its own with --name, or remove the pod."
            )
        return pods

    def choose_gpus(self, release: str) -> "tuple[GpuOffer, ...]":
        """Return the GPUs that pods of a release try."""
        from comfypin.runpod.fleet_pods import choose_gpus, offer_spot, read_pod_gpus

        read_at_s, offers = self._offers.get(release, (float("-inf"), ()))
        if time.monotonic() - read_at_s > _CATALOG_GOOD_FOR_S:
            arguments, gpus = self.arguments, read_pod_gpus(self.management_api)
            model_gb = self.known[release].facts.largest_model_bytes / 1e9
            offers = choose_gpus(gpus, named_gpus=arguments.gpu, cloud=arguments.cloud, model_gb=model_gb)
            if arguments.spot:
                offers = offer_spot(self.management_api, offers[:_MOST_SPOT_OFFERS], arguments.bid)
            self._offers[release] = (time.monotonic(), offers)
        return offers

    def make_pod(self, release: str) -> "FleetPod":
        """Make a pod. Raises `NoPodPlaced`, `ApiRefused`, `ApiUnreachable`, `LockTooLarge`."""
        from comfypin.runpod.fleet_pods import make_pod

        wish = self._make_wish(release)
        return make_pod(self.management_api, wish, self.choose_gpus(release), secrets.token_hex(4))

    def remove_pod(self, pod: "FleetPod") -> None:
        """Remove a pod."""
        self.management_api.remove_resource("pod", pod.id)

    def missing_secrets(self) -> list[str]:
        """Return the names of the secrets that have to be made."""
        from comfypin.runpod.up.platform_secrets import list_secrets

        there = list_secrets(self.management_api)
        return [
            wish.secret_name
            for wish in self.wishes
            if wish.secret_name not in there or (wish.own_value and self.arguments.renew_secrets)
        ]

    def make_secrets(self) -> None:
        """Make the secrets that are missing. Raises `SecretUnset`."""
        from comfypin.runpod.up.errors import SecretUnset
        from comfypin.runpod.up.platform_secrets import list_secrets, make_secret, remove_secret

        missing = set(self.missing_secrets())
        there = list_secrets(self.management_api) if missing else {}
        for wish in self.wishes:
            if wish.secret_name not in missing:
                continue
            if not (value := self.values.get(wish.variable, "")):
                raise SecretUnset(variable=wish.variable)
            # Runpod cannot change a secret's value, so the old one goes first.
            if wish.secret_name in there:
                remove_secret(self.management_api, there[wish.secret_name])
            make_secret(self.management_api, wish.secret_name, value)

    def _make_wish(self, release: str) -> "PodWish":
        from comfypin.runpod.fleet_pods import PodWish
        from comfypin.runpod.up.plan import secret_reference

        arguments, known = self.arguments, self.known[release]
        facts = known.facts
        command = (
            *("comfypin", "worker", "--class", self.gpu_class, "--idle-exit", f"{arguments.idle_exit:g}"),
            *("--grace", str(arguments.grace), "--remove-pod"),
        )
        on_volume = arguments.volume is not None
        # On a volume the models take no room of the pod's own disk.
        models_gb = 0 if on_volume else facts.models_bytes / 1e9
        return PodWish(
            fleet=self.fleet,
            queue_id=self.queue_id,
            release=release,
            gpu_class=self.gpu_class,
            image=known.image,
            command=command,
            disk_gb=arguments.disk or int(facts.container_disk_gb + models_gb + 1),
            env={
                **plain_variables(arguments.env),
                **{wish.variable: secret_reference(wish.secret_name) for wish in self.wishes},
                **self._lock_variables(known),
            },
            cloud=arguments.cloud,
            min_cuda=facts.cuda,
            data_centers=tuple(arguments.data_center),
            volume=arguments.volume,
            registry=arguments.registry,
            is_spot=arguments.spot,
        )

    def _lock_variables(self, known: _KnownRelease) -> dict[str, str]:
        from comfypin.runpod.up.plan import carried_lock_variables

        address = self.arguments.lock_url
        if address is not None and "#sha256=" not in address:
            raise UsageError("--lock-url must end with #sha256=... of the lock's file.")
        return carried_lock_variables(known.carried_lock, release=known.facts.name, lock_url=address)


def open_pod_maker(arguments: argparse.Namespace, address: str) -> PodMaker:
    """Return what makes the pods that the flags describe. Raises `UsageError`, `LockError`, `ApiKeyMissing`, ..."""
    from comfypin.cli.common import read_named_lock
    from comfypin.queue.nats.names import is_class_name
    from comfypin.wiring import open_runpod_api

    settings: Settings = arguments.settings
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", arguments.name):
        raise UsageError(f"--name {arguments.name[:60]!r} must be up to 40 letters, digits, '_' and '-'.")
    if arguments.bid is not None and not arguments.spot:
        raise UsageError("--bid is for --spot.")
    if not is_class_name(arguments.gpu_class):
        raise UsageError(f"--class {arguments.gpu_class!r} must be up to 40 letters, digits and dashes.")
    management_api = open_runpod_api(settings)
    known = {}
    for lock_name in arguments.release or [None]:
        key, known_release = _know(read_named_lock(lock_name, settings)[1].lock, arguments)
        known[key] = known_release
    values = _secret_values(arguments, address)
    return PodMaker(
        arguments=arguments,
        management_api=management_api,
        wishes=secret_wishes([*values, *arguments.secret], f"fleet_{arguments.name}"),
        values={
            **settings.pick_variables([secret_text.partition("=")[0] for secret_text in arguments.secret]),
            **values,
        },
        releases=tuple((key, known_release.facts.name) for key, known_release in known.items()),
        known=known,
    )


def _know(lock: "Lock", arguments: argparse.Namespace, image: str | None = None) -> tuple[str, _KnownRelease]:
    """Return the key of a release, and what pods need of its lock. Raises `WorkerImageUnknown`."""
    from comfypin.cli.runpod.worker_image import resolve_worker_image
    from comfypin.lock.carried import carry_lock
    from comfypin.lock.codec import lock_digest, render_lock
    from comfypin.runpod.release_facts import release_facts
    from comfypin.wiring import release_key

    digest = lock_digest(lock)
    known = _KnownRelease(
        facts=release_facts(lock, digest),
        image=image or resolve_worker_image(arguments.image, lock, arguments.settings),
        carried_lock=carry_lock(render_lock(lock)),
    )
    return release_key(digest), known


def _secret_values(arguments: argparse.Namespace, address: str) -> dict[str, str]:
    """Return how pods reach the queue, by variable: as COMFYPIN_WORKER_... says, else as this machine does."""
    variables = arguments.settings.variables
    queue = arguments.pod_queue or variables.read_text("COMFYPIN_WORKER_QUEUE")
    if queue is None and any(local_name in address for local_name in _LOCAL):
        raise UsageError(
            f"Pods cannot reach the queue at {address}; name the address at which they can with --pod-queue, or in "
            "COMFYPIN_WORKER_QUEUE."
        )
    from comfypin.queue.nats.connection import parse_queue_address

    values = {"COMFYPIN_QUEUE": ",".join(parse_queue_address(queue or address))}
    prefix = "COMFYPIN_WORKER_NATS_"
    # All or none: half a login for workers with half of this machine's would fit nowhere.
    if not any(variable_name.startswith(prefix) and variables[variable_name] for variable_name in variables):
        prefix = "COMFYPIN_NATS_"
    for variable in _LOGINS:
        if value := variables.read_text(variable.replace("COMFYPIN_NATS_", prefix)):
            values[variable] = value
    for variable in _LOGIN_FILES:
        variable_name = variable.replace("COMFYPIN_NATS_", prefix)
        if file_text := variables.read_text(f"{variable_name}_DATA"):
            values[f"{variable}_DATA"] = file_text
        elif (path := variables.read_file_path(variable_name)) is not None:
            values[f"{variable}_DATA"] = _read_secret_file(variable_name, path)
    if seal := variables.read_text("COMFYPIN_FLEET_KEY"):
        values["COMFYPIN_FLEET_KEY"] = seal
    return values


def _read_secret_file(variable: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{variable} names {path}, which cannot be read.", variable=variable) from exc
