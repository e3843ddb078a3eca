"""The only place that names adapters; settings and locks in, engines, stores and sinks out; SDKs imported lazily."""

from comfypin.wiring.engines import EngineChoice, choose_engine, open_engine
from comfypin.wiring.envs import ensure_env, env_pack, lock_places, realize_options, source_places
from comfypin.wiring.models import bring_models, model_describer, model_findings, model_sources, model_store
from comfypin.wiring.network import http_proxies, http_transport
from comfypin.wiring.platforms import open_builder, runpod_api, runpod_jobs_api, volume_bucket
from comfypin.wiring.service import fitness_checks, open_service, open_sinks
from comfypin.wiring.sinks import make_job_sink, make_sink, watch_uploads
from comfypin.wiring.stores import open_bucket, open_shelf, open_store

__all__ = [
    "EngineChoice",
    "bring_models",
    "choose_engine",
    "ensure_env",
    "env_pack",
    "fitness_checks",
    "http_proxies",
    "http_transport",
    "lock_places",
    "make_job_sink",
    "make_sink",
    "model_describer",
    "model_findings",
    "model_sources",
    "model_store",
    "open_bucket",
    "open_builder",
    "open_engine",
    "open_service",
    "open_shelf",
    "open_sinks",
    "open_store",
    "realize_options",
    "runpod_api",
    "runpod_jobs_api",
    "source_places",
    "volume_bucket",
    "watch_uploads",
]
