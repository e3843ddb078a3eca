"""The one place that chooses adapters: from settings and locks to engines, stores and sinks; SDKs stay lazy."""

from comfypin.wiring.engines import EngineChoice, choose_engine, open_engine
from comfypin.wiring.envs import (
    ensure_env,
    ensure_env_pack,
    holds_foreign_comfyui,
    make_lock_places,
    make_realize_options,
    make_source_places,
    realize_for_engine,
)
from comfypin.wiring.job_servers import open_job_server
from comfypin.wiring.models import (
    bring_models,
    find_model_problem,
    inspect_lock_models,
    make_model_describer,
    open_job_models,
    open_model_sources,
    open_model_store,
)
from comfypin.wiring.network import http_proxies, http_transport
from comfypin.wiring.page import open_page
from comfypin.wiring.platforms import (
    open_balanced_jobs_api,
    open_builder,
    open_builder_of,
    open_runpod_api,
    open_runpod_jobs_api,
    open_volume_bucket,
)
from comfypin.wiring.queues import (
    make_release_opener,
    open_fleet_queue,
    open_local_queue,
    release_key,
    require_fleet_extra,
)
from comfypin.wiring.read_ahead import ModelReadAhead
from comfypin.wiring.release_claim import name_release
from comfypin.wiring.service import make_fitness_checks, open_service, open_sinks
from comfypin.wiring.sinks import make_job_sink, make_sink, watch_uploads
from comfypin.wiring.starting import are_models_there, check_models, leave_out_api_nodes
from comfypin.wiring.stores import open_bucket, open_depot, open_pack_store, open_store, own_bucket

__all__ = [
    "EngineChoice",
    "ModelReadAhead",
    "are_models_there",
    "bring_models",
    "check_models",
    "choose_engine",
    "ensure_env",
    "ensure_env_pack",
    "find_model_problem",
    "holds_foreign_comfyui",
    "http_proxies",
    "http_transport",
    "inspect_lock_models",
    "leave_out_api_nodes",
    "make_fitness_checks",
    "make_job_sink",
    "make_lock_places",
    "make_model_describer",
    "make_realize_options",
    "make_release_opener",
    "make_sink",
    "make_source_places",
    "name_release",
    "open_balanced_jobs_api",
    "open_bucket",
    "open_builder",
    "open_builder_of",
    "open_depot",
    "open_engine",
    "open_fleet_queue",
    "open_job_models",
    "open_job_server",
    "open_local_queue",
    "open_model_sources",
    "open_model_store",
    "open_pack_store",
    "open_page",
    "open_runpod_api",
    "open_runpod_jobs_api",
    "open_service",
    "open_sinks",
    "open_store",
    "open_volume_bucket",
    "own_bucket",
    "realize_for_engine",
    "release_key",
    "require_fleet_extra",
    "watch_uploads",
]
