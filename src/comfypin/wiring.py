"""The only place that names adapters: settings and locks in, engines, stores and sinks out; SDKs imported lazily."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from comfypin.deploy.api import Api
    from comfypin.deploy.volume_bucket import VolumeBucket
    from comfypin.engine.command import ChildSpec
    from comfypin.engine.interface import Engine
    from comfypin.env.realize import RealizeOptions
    from comfypin.env.shelf import Shelf
    from comfypin.image.interface import ContainerBuilder
    from comfypin.lock.model import EngineKind, EngineSpec, Lock, ModelPin
    from comfypin.lock.modelspec import DescribeModel
    from comfypin.lock.parts import Places
    from comfypin.models.interface import ModelSource, Watcher
    from comfypin.models.store import BlobStore
    from comfypin.models.verify import Finding as ModelFinding
    from comfypin.objects.config import GcsConfig, S3Config
    from comfypin.objects.interface import ObjectStore
    from comfypin.outputs.bucket import BucketSink, UploadWatcher
    from comfypin.outputs.config import OutputConfig
    from comfypin.outputs.interface import OutputSink
    from comfypin.serve.handler import Service, SinkFor
    from comfypin.serve.wire import OutputWish, S3Wish
    from comfypin.settings import EnvSettings, ModelSettings, OutputMode, RunpodSettings, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which engine runs, as the lock and the flags say, and the settings of this machine."""

    spec: "EngineSpec"
    settings: "Settings"

    @property
    def kind(self) -> "EngineKind":
        """The engine's kind."""
        return self.spec.kind


def choose_engine(
    spec: "EngineSpec", settings: "Settings", *, kind: "EngineKind | None" = None, url: str | None = None
) -> EngineChoice:
    """The lock's engine, or the one that flags name; an engine that nobody named is never fallen back to.

    Raises `UsageError` for flags that contradict each other, `ConfigError` for a remote engine without an address.
    """
    if url is not None and kind not in (None, "remote"):
        raise UsageError(f"--engine-url goes with --engine remote, not with --engine {kind}.")
    chosen = kind or ("remote" if url is not None else spec.kind)
    url = url or spec.url
    if chosen == "remote" and url is None:
        raise ConfigError("The engine is remote, and neither --engine-url nor the lock's engine.url says where it is.")
    return EngineChoice(spec=replace(spec, kind=chosen, url=url), settings=settings)


@asynccontextmanager
async def open_engine(choice: EngineChoice) -> AsyncIterator["Engine"]:
    """The engine, started where it is ours to start; stopped, with all that it left, when the block ends.

    Raises `EngineNotFound`, `EngineUrlInvalid`, `EngineStartFailed`.
    """
    if choice.spec.kind == "remote":
        from comfypin.engine.remote import open_remote

        async with open_remote(choice.spec.url or "") as engine:
            yield engine
        return
    from comfypin.engine.process import open_child

    child = _child(choice)
    with tempfile.TemporaryDirectory(prefix="comfypin-engine-", ignore_cleanup_errors=True) as work:
        async with open_child(child, Path(work)) as engine:
            yield engine


def _child(choice: EngineChoice) -> "ChildSpec":
    from comfypin.engine.command import comfyui_child, embedded_child, has_gpu

    settings = choice.settings
    if choice.spec.kind == "embedded":
        return embedded_child(choice.spec, settings.environ)
    return comfyui_child(
        settings.comfy_home,
        choice.spec,
        settings.environ,
        gpu=has_gpu(settings.environ),
        # A default that is not there would only be listed in the engine's log, folder by folder.
        models_dir=settings.models_dir if settings.named_models_dir or settings.models_dir.is_dir() else None,
        fast_models_dir=settings.fast_models_dir,
    )


def make_sink(
    mode: "OutputMode",
    settings: "Settings",
    *,
    out_file: Path | None = None,
    out_dir: Path | None = None,
    bucket: str | None = None,
    prefix: str | None = None,
    result_max_bytes: int | None = None,
) -> "OutputSink":
    """Where outputs go, checked as far as it can be before a job runs.

    `result_max_bytes` is what the platform that takes the result can hold, where INLINE_MAX_BYTES does not say.
    Raises `ConfigError`, `FolderUnusable`; for buckets also `StorageError`: they are asked, unless GCS_VALIDATE or
    S3_VALIDATE is false.
    """
    from comfypin.outputs.config import OutputConfig
    from comfypin.outputs.convert import ConvertingSink

    outputs = OutputConfig.from_variables(settings.environ)
    sink: OutputSink
    if mode == "base64" and out_file is not None:
        from comfypin.outputs.folder import FileSink

        sink = FileSink.usable(out_file)
    elif mode == "base64":
        from comfypin.outputs.inline import InlineSink

        limit = result_max_bytes if outputs.inline_max_bytes is None else outputs.inline_max_bytes
        sink = InlineSink(max_bytes=limit, overflow=_overflow(settings, outputs))
    elif mode == "file":
        from comfypin.outputs.folder import FolderSink

        sink = FolderSink.usable(out_dir or Path("out"))
    else:
        sink = _bucket_sink(mode, settings, outputs, bucket=bucket, prefix=prefix)
    return sink if outputs.conversion.is_nothing else ConvertingSink(sink, outputs.conversion)


def watch_uploads(sink: "OutputSink", watcher: "UploadWatcher") -> None:
    """Have the watcher told of all that goes up to a bucket, where the sink delivers into one."""
    from comfypin.outputs.bucket import BucketSink
    from comfypin.outputs.convert import ConvertingSink

    inner = sink.sink if isinstance(sink, ConvertingSink) else sink
    if isinstance(inner, BucketSink):
        inner.watcher = watcher


def make_job_sink(
    settings: "Settings", s3_config: "Mapping[str, object]", *, private_buckets: bool = False
) -> "OutputSink":
    """The sink of one RunPod job that brought its own `s3Config`. Raises `JobInvalid`, `ConfigError`, `StorageError`.

    `private_buckets` lets the job name a bucket at a private address.
    """
    from comfypin.objects.config import S3Config
    from comfypin.outputs.config import OutputConfig
    from comfypin.outputs.convert import ConvertingSink
    from comfypin.serve.addresses import require_public

    outputs = OutputConfig.from_variables(settings.environ)
    config = S3Config.from_variables(settings.environ).for_job(s3_config)
    if not private_buckets:
        require_public(config)
    sink = _s3_sink(config, outputs)
    return sink if outputs.conversion.is_nothing else ConvertingSink(sink, outputs.conversion)


def _overflow(settings: "Settings", outputs: "OutputConfig") -> "Callable[[], OutputSink] | None":
    """What takes outputs that are too big for a result: the bucket that is configured, opened when it is needed."""
    from comfypin.objects.config import GcsConfig, S3Config

    if GcsConfig.from_variables(settings.environ).bucket:
        return lambda: _bucket_sink("gcs", settings, outputs)
    if S3Config.from_variables(settings.environ).bucket:
        return lambda: _bucket_sink("s3", settings, outputs)
    return None


def _bucket_sink(
    mode: "Literal['gcs', 's3']",
    settings: "Settings",
    outputs: "OutputConfig",
    *,
    bucket: str | None = None,
    prefix: str | None = None,
) -> "BucketSink":
    from comfypin.objects.config import GcsConfig, S3Config
    from comfypin.objects.keys import clean_prefix

    if mode == "gcs":
        gcs = GcsConfig.from_variables(settings.environ)
        named = bucket.removeprefix("gs://").strip("/") if bucket else gcs.bucket
        return _gcs_sink(
            replace(gcs, bucket=named, prefix=gcs.prefix if prefix is None else clean_prefix(prefix)), outputs
        )
    return _s3_sink(S3Config.from_variables(settings.environ), outputs)


def _gcs_sink(config: "GcsConfig", outputs: "OutputConfig") -> "BucketSink":
    from comfypin.objects.gcs import GcsStore
    from comfypin.outputs.bucket import BucketSink, Links, Naming

    store = GcsStore(config)
    if config.validate:
        store.validate()
    public = f"https://storage.googleapis.com/{config.bucket}" if config.public else None
    links = Links(signed_ttl_s=config.signed_url_ttl_s, public_base_url=public)
    links.require_signing(store)
    return BucketSink(store, Naming(prefix=config.prefix, template=outputs.template), links=links)


def _s3_sink(config: "S3Config", outputs: "OutputConfig") -> "BucketSink":
    from comfypin.objects.s3 import S3Store
    from comfypin.outputs.bucket import BucketSink, Links, Naming

    store = S3Store(config)
    links = Links(signed_ttl_s=config.signed_url_ttl_s, public_base_url=config.public_base_url)
    links.require_signing(store)
    if config.validate:
        store.validate(below=config.prefix)
    return BucketSink(store, Naming(prefix=config.prefix, template=outputs.template), links=links)


def realize_options(
    settings: "Settings",
    env: "EnvSettings",
    *,
    publish: bool = False,
    rebuild: bool = False,
    target: str | None = None,
    tell: "Callable[[str], None] | None" = None,
) -> "RealizeOptions":
    """How this machine realizes locks. Raises `UsageError` for flags that do not fit together."""
    from comfypin.env.layout import Home
    from comfypin.env.realize import RealizeOptions, silent
    from comfypin.env.sources import SourcePlaces
    from comfypin.tools.vendor import VendorFolder

    if publish and env.packs is None:
        raise UsageError("--publish needs a place for packs: --packs DIR|BUCKET or COMFYPIN_PACKS.")
    if env.vendor is not None and not env.vendor.is_dir():
        raise UsageError(f"The vendor folder {env.vendor} does not exist.")
    vendor = VendorFolder(root=env.vendor.absolute()) if env.vendor else None
    return RealizeOptions(
        home=Home(root=settings.comfy_home.absolute()),
        models_dir=settings.models_dir.absolute(),
        places=SourcePlaces(cache=env.cache_dir.absolute(), vendor=vendor, offline=env.offline),
        shelf=open_shelf(env.packs) if env.packs else None,
        publish=publish,
        rebuild=rebuild,
        target=target,
        tell=tell or silent,
    )


def ensure_env(
    lock: "Lock", choice: EngineChoice, *, env: "EnvSettings", tell: "Callable[[str], None]"
) -> EngineChoice:
    """The choice with the home that holds the lock's env, realized and its models brought where that was needed.

    Other engines than `comfyui` need none. A ComfyUI in the home that somebody else made is used as it is, and said so.
    Raises `EnvError`, `LockError`, `ModelError`.
    """
    from comfypin.env.realize import realize

    settings = choice.settings
    if choice.kind != "comfyui" or lock.engine.kind != "comfyui":
        return choice
    home = settings.comfy_home
    if not (home / "current").is_symlink() and any((home / path).is_file() for path in _FOREIGN):
        tell(f"{home} holds a ComfyUI that was not realized from this lock: it is used as it is.")
        return choice
    realized = realize(lock, realize_options(settings, env, tell=tell))
    bring_models(lock, settings, offline=env.offline)
    moved = settings.overridden(comfy_home=realized.folder, models_dir=settings.models_dir.absolute())
    return replace(choice, settings=moved)


_FOREIGN = ("ComfyUI/main.py", "main.py")


def bring_models(lock: "Lock", settings: "Settings", *, offline: bool, watcher: "Watcher | None" = None) -> int:
    """Bring those of the lock's models that are not in their places as pinned, and say how many they were.

    Raises `ModelError`; offline, for the first one that would have to be fetched.
    """
    if not lock.models:
        return 0
    from comfypin.errors.model import ModelsFailed
    from comfypin.models.effort import Budget
    from comfypin.models.places import Places, targets
    from comfypin.models.pull import Puller
    from comfypin.models.verify import Present, failure, inspect_all
    from comfypin.settings import ModelSettings

    models_dir = settings.models_dir.absolute()
    models = targets(lock, Places(models_dir=models_dir, comfy_home=settings.comfy_home.absolute()))
    configured = ModelSettings.from_environment(settings.environ)
    store = model_store(models_dir, configured)
    findings = list(zip(models, inspect_all(models, store), strict=True))
    wrong = [(model, finding) for model, finding in findings if not isinstance(finding, Present)]
    if wrong and offline:
        problems = [problem for (pin, _), finding in wrong if (problem := failure(pin, finding)) is not None]
        raise ModelsFailed(failures=problems, total=len(models))
    if wrong:
        store.remember_release(lock.version_name, lock.models)
        puller = Puller(store, model_sources(configured), Budget(configured.connections), watcher=watcher)
        puller.pull([model for model, _ in wrong]).raise_failures()
    return len(wrong)


def model_findings(lock: "Lock", settings: "Settings") -> "list[tuple[ModelPin, ModelFinding]]":
    """Each of the lock's models and what is in its place, every byte read where anything changed."""
    from comfypin.models.places import Places, targets
    from comfypin.models.verify import inspect_all
    from comfypin.settings import ModelSettings

    models_dir = settings.models_dir.absolute()
    models = targets(lock, Places(models_dir=models_dir, comfy_home=settings.comfy_home.absolute()))
    store = model_store(models_dir, ModelSettings.from_environment(settings.environ))
    return [(pin, finding) for (pin, _), finding in zip(models, inspect_all(models, store), strict=True)]


def open_shelf(address: str) -> "Shelf":
    """Where env packs are kept: a folder, or a bucket by its address. Raises `UsageError`."""
    from comfypin.env.shelf import BucketShelf, FolderShelf

    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "file":
        return FolderShelf(Path(rest if separator else address).absolute())
    return BucketShelf(open_store(address))


def open_builder(wanted: str) -> "ContainerBuilder":
    """What builds images here: the one that is named, or with `auto` the first that works. Raises `NoBuilder`."""
    from comfypin.errors.image import NoBuilder
    from comfypin.image.buildah import Buildah, store_answers
    from comfypin.image.docker import Docker, docker_answers
    from comfypin.image.podman import Podman

    builders: dict[str, tuple[Callable[[], str | None], Callable[[], ContainerBuilder]]] = {
        "docker": (docker_answers, Docker),
        "buildah": (lambda: store_answers("buildah"), Buildah),
        "podman": (lambda: store_answers("podman"), Podman),
    }
    tried = []
    for why_not, make in [builders[wanted]] if wanted != "auto" else builders.values():
        if (reason := why_not()) is None:
            return make()
        tried.append(reason)
    raise NoBuilder(tried=tried)


def runpod_api() -> "Api":
    """RunPod's management API with the environment's key. Raises `ApiKeyMissing`."""
    from comfypin.settings import RunpodSettings

    settings = RunpodSettings.from_environment()
    return _runpod(settings, settings.api_url)


def runpod_jobs_api() -> "Api":
    """The job API of RunPod's endpoints, or of the server that RUNPOD_ENDPOINT_BASE_URL names."""
    from comfypin.settings import RunpodSettings

    settings = RunpodSettings.from_environment()
    return _runpod(settings, settings.jobs_url)


def _runpod(settings: "RunpodSettings", base_url: str) -> "Api":
    from comfypin.deploy.api import Api
    from comfypin.errors.deploy import ApiKeyMissing

    if settings.api_key is None:
        raise ApiKeyMissing
    return Api(key=settings.api_key, base_url=base_url)


def volume_bucket(volume_id: str, data_center: str) -> "VolumeBucket":
    """A network volume through its S3 API, with the environment's keys for it. Raises `VolumeKeysMissing`."""
    from comfypin.deploy.volume_bucket import VolumeBucket
    from comfypin.errors.deploy import VolumeKeysMissing
    from comfypin.objects.config import S3Credentials
    from comfypin.objects.s3_errors import S3Place
    from comfypin.settings import RunpodSettings

    settings = RunpodSettings.from_environment()
    if settings.s3_access_key is None or settings.s3_secret_key is None:
        raise VolumeKeysMissing
    keys = S3Credentials(access_key_id=settings.s3_access_key, secret_access_key=settings.s3_secret_key)
    endpoint = settings.volumes_url.replace("{dc}", data_center.lower())
    return VolumeBucket(S3Place(bucket=volume_id, endpoint=endpoint, region=data_center), keys)


def env_pack(lock: "Lock", settings: "Settings", env: "EnvSettings", *, tell: "Callable[[str], None]") -> Path:
    """The pack of the lock's env as a file of this machine, realized and packed where that was not done before.

    Raises `EnvError`, `LockError`.
    """
    from comfypin.env.plan import pack_name
    from comfypin.env.realize import realize
    from comfypin.env.shelf import FolderShelf

    realized = realize(lock, realize_options(settings, env, tell=tell))
    name = pack_name(realized.receipt.key, realized.receipt.platform)
    shelves = [FolderShelf(env.cache_dir.absolute() / "packs")]
    if env.packs is not None and isinstance(named := open_shelf(env.packs), FolderShelf):
        shelves.insert(0, named)
    found = next((path for shelf in shelves if (path := shelf.find(name)) is not None), None)
    if found is None:
        tell("Packing the env.")
        shelves[-1].root.mkdir(parents=True, exist_ok=True)
        found = shelves[-1].publish(realized.folder, name)
    return Path(found)


def lock_places(env: "EnvSettings") -> "Places":
    """Where the parts of a lock come from, with the caches that realizing uses too."""
    from comfypin.lock.parts import Places
    from comfypin.lock.registry import Registry
    from comfypin.tools.git import Commits

    cache = env.cache_dir.absolute()
    return Places(
        commits=Commits(cache=cache / "git", offline=env.offline),
        registry=Registry(url=env.registry_url),
        archives=cache / "archives",
    )


def model_describer() -> "DescribeModel":
    """How `lock create` learns a model's digest and size: from the source's own words, else by reading it once."""
    from comfypin.lock.modelspec import ModelFacts
    from comfypin.models.describe import describe

    sources = model_sources()

    def facts_of(source: str) -> ModelFacts:
        described = describe(source, sources)
        facts = described.facts
        return ModelFacts(
            source=source if source.startswith("file:") else facts.uri,
            filename=facts.filename,
            sha256=described.sha256,
            size_bytes=described.size_bytes,
            folder=facts.folder,
        )

    return facts_of


def model_sources(settings: "ModelSettings | None" = None, *, timeout_s: float = 30.0) -> "list[ModelSource]":
    """The kinds of places that models come from, with the environment's tokens, each for its own host only."""
    from urllib.parse import urlsplit

    from comfypin.models.bucket import BucketSource
    from comfypin.models.civitai import CivitaiSource
    from comfypin.models.http import Credentials, HttpClient
    from comfypin.models.httpfile import HttpSource
    from comfypin.models.huggingface import HubSource
    from comfypin.models.local import LocalSource
    from comfypin.settings import ModelSettings

    settings = settings or ModelSettings.from_environment()
    owners = ((settings.hub_endpoint, settings.hub_token), (settings.civitai_endpoint, settings.civitai_token))
    tokens = {urlsplit(endpoint).netloc: token for endpoint, token in owners if token}
    client = HttpClient(credentials=Credentials(tokens=tokens), timeout_s=timeout_s)
    return [
        HttpSource(client),
        HubSource(client, endpoint=settings.hub_endpoint, caches=settings.hub_caches),
        CivitaiSource(client, endpoint=settings.civitai_endpoint),
        BucketSource(_open_bucket),
        LocalSource(),
    ]


@lru_cache
def _open_bucket(scheme: str, bucket: str, prefix: str = "") -> "ObjectStore":
    """A bucket by its name, or the part of it below a prefix, with the environment's endpoint and keys."""
    from comfypin.objects.config import GcsConfig, S3Config
    from comfypin.settings import Settings

    environ = Settings.from_environment().environ
    if scheme == "gs":
        from comfypin.objects.gcs import GcsStore

        return GcsStore(replace(GcsConfig.from_variables(environ), bucket=bucket), prefix=prefix)
    from comfypin.objects.s3 import S3Store

    return S3Store(replace(S3Config.from_variables(environ), bucket=bucket), prefix=prefix)


def open_store(address: str) -> "ObjectStore":
    """A store by its address: `gs://bucket/prefix`, `s3://bucket/prefix`, or a folder. Raises `UsageError`."""
    from comfypin.objects.keys import clean_prefix

    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "file":
        from comfypin.objects.directory import DirectoryStore

        return DirectoryStore(Path(rest if separator else address).absolute(), sidecars=False)
    bucket, _, prefix = rest.partition("/")
    if scheme not in ("gs", "s3") or not bucket:
        raise UsageError(f"{address} is no place for objects; write gs://bucket/prefix, s3://bucket/prefix or DIR.")
    return _open_bucket(scheme, bucket, clean_prefix(prefix))


def model_store(models_dir: Path, settings: "ModelSettings | None" = None, *, store: Path | None = None) -> "BlobStore":
    """The store of a models' folder: the one that is named, else the environment's, else the folder's own."""
    from comfypin.models.places import STORE_FOLDER
    from comfypin.models.store import BlobStore, Durability
    from comfypin.settings import ModelSettings

    settings = settings or ModelSettings.from_environment()
    root = store or settings.store or models_dir / STORE_FOLDER
    return BlobStore(root.absolute(), durability=Durability(always=settings.durable))


def open_service(
    lock: "Lock",
    engine: "Engine",
    settings: "Settings",
    *,
    private_inputs: bool = False,
    folder: "OutputSink | None" = None,
) -> "Service":
    """What the jobs of a worker or server share. `private_inputs` lets jobs name private addresses.

    `folder` takes outputs on this machine's disk, where it stays: on a server, not on a worker.
    """
    from comfypin.models.http import HttpClient
    from comfypin.serve.fetch import Fetcher, Limits
    from comfypin.serve.handler import Service
    from comfypin.serve.workflows import WorkflowFolder

    return Service(
        lock=lock,
        engine=engine,
        fetcher=Fetcher(
            open_client=lambda: HttpClient(public_only=not private_inputs), open_bucket=_open_bucket, limits=Limits()
        ),
        sink_for=_sink_for(settings, folder, private_buckets=private_inputs),
        workflows=WorkflowFolder(),
    )


def _sink_for(settings: "Settings", folder: "OutputSink | None", *, private_buckets: bool) -> "SinkFor":
    """The sink a job wishes for; those that jobs share are opened once (a bucket is asked then)."""
    from comfypin.outputs.config import RUNPOD_RESULT_BYTES, SERVER_RESULT_BYTES

    result_max_bytes = RUNPOD_RESULT_BYTES if folder is None else SERVER_RESULT_BYTES

    @lru_cache(maxsize=32)
    def shared(mode: "OutputMode", changes: "tuple[tuple[str, str], ...]") -> "OutputSink":
        changed = replace(settings, environ={**settings.environ, **dict(changes)})
        if mode == "file":
            return _folder_sink(changed, folder)
        return make_sink(mode, changed, result_max_bytes=result_max_bytes)

    def sink_for(wish: "OutputWish", s3: "S3Wish | None") -> "OutputSink":
        changes = _wished(wish)
        if s3 is not None and wish.mode in (None, "s3"):
            changed = replace(settings, environ={**settings.environ, **changes})
            return make_job_sink(changed, s3.model_dump(), private_buckets=private_buckets)
        return shared(wish.mode or _job_mode(settings, folder), tuple(sorted(changes.items())))

    return sink_for


def _folder_sink(settings: "Settings", folder: "OutputSink | None") -> "OutputSink":
    from comfypin.outputs.config import OutputConfig
    from comfypin.outputs.convert import ConvertingSink

    if folder is None:
        raise ConfigError(
            "Outputs on a worker's own disk go with the worker; deliver them as base64 or to a bucket "
            "(output.mode, OUTPUT_MODE).",
            variable="OUTPUT_MODE",
        )
    conversion = OutputConfig.from_variables(settings.environ).conversion
    return folder if conversion.is_nothing else ConvertingSink(folder, conversion)


def _job_mode(settings: "Settings", folder: "OutputSink | None") -> "OutputMode":
    """Where jobs' outputs go when neither they nor OUTPUT_MODE say: the bucket that is configured, else what is here.

    That is the server's folder, or a worker's result.
    """
    from comfypin.objects.config import GcsConfig, S3Config

    if settings.environ.get("OUTPUT_MODE", "").strip():
        return settings.output_mode
    if GcsConfig.from_variables(settings.environ).bucket:
        return "gcs"
    if S3Config.from_variables(settings.environ).bucket:
        return "s3"
    return "base64" if folder is None else "file"


def _wished(wish: "OutputWish") -> dict[str, str]:
    """A job's wishes for its outputs as the variables that they stand in for."""
    wishes = {
        "OUTPUT_KEY_TEMPLATE": wish.template,
        "OUTPUT_FORMAT": wish.format,
        "OUTPUT_QUALITY": None if wish.quality is None else str(wish.quality),
        "OUTPUT_KEEP_WORKFLOW": None if wish.keep_workflow is None else str(wish.keep_workflow).lower(),
    }
    return {name: value for name, value in wishes.items() if value is not None}


def fitness_checks(lock: "Lock", settings: "Settings") -> "Mapping[str, Callable[[], None]]":
    """Why this machine could not do the lock's jobs."""
    from comfypin.lock.cuda import cuda_floor
    from comfypin.models.verify import Present
    from comfypin.serve.fitness import checks

    def missing() -> list[str]:
        if lock.engine.kind != "comfyui":
            return []
        return [pin.name for pin, finding in model_findings(lock, settings) if not isinstance(finding, Present)]

    return checks(
        lock,
        cuda_needed=cuda_floor(lock.python.packages),
        models_missing=missing,
        scratch=Path(tempfile.gettempdir()),
    )
