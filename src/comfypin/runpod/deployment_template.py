"""The runpod.toml that `comfypin runpod init` writes: commented, complete, valid once the image is filled in."""

_FILE = """\
#:schema runpod.schema.json
# What should exist on Runpod for one release. `comfypin runpod plan` shows what `apply` would do.
# Schema for editors: comfypin runpod schema > runpod.schema.json

name = "{name}"       # marks everything that belongs to this deployment
release = "{name}"    # a release by name (lockfiles/comfy-{name}.lock.json) or a lock's path

# The image, by digest: `comfypin image push` prints it.
image = "{image}"

# Environment of every worker and pod. Secrets only by reference: make them in Runpod's console, Secrets.
[env]
# HF_TOKEN = "{{{{ RUNPOD_SECRET_hf_token }}}}"

# Where outputs go (docs/storage.md).
[storage]
OUTPUT_MODE = "base64"
# OUTPUT_MODE = "s3"
# S3_BUCKET = "my-outputs"
# R2_ACCOUNT_ID = "..."
# AWS_ACCESS_KEY_ID = "{{{{ RUNPOD_SECRET_r2_key_id }}}}"
# AWS_SECRET_ACCESS_KEY = "{{{{ RUNPOD_SECRET_r2_secret }}}}"

# A private image registry; the values come from these variables when you run `apply`.
# [[registry]]
# name = "ghcr"
# username_env = "GHCR_USER"
# password_env = "GHCR_TOKEN"

# A network volume for models and env packs: `comfypin runpod volume push` fills it without a pod.
# [[volume]]
# name = "models"
# data_center = "EU-RO-1"
# size = 100              # GB; it can grow, never shrink
# existing = true         # use one that is there, and never change it

[[template]]
name = "worker"
kind = "serverless"
# registry = "ghcr"
# disk = 20               # GB; left out, it is derived from the lock

[[endpoint]]
name = "api"
template = "worker"
gpu_pools = ["ADA_24"]    # ids of the GPU catalog; the CUDA floor comes from the lock's torch
# type = "load-balancer"  # in place of a queue; [env] then needs COMFYPIN_TOKEN
# volumes = ["models"]
timeout = 600             # seconds a job may run
flashboot = "on"
[endpoint.workers]
min = 0
max = 3
idle_timeout = 10
[endpoint.scaling]
queue_delay = 4

# A pod: the same release with ComfyUI's page, at /workspace on the volume.
# [[template]]
# name = "studio"
# kind = "pod"
# ports = ["8000/http", "22/tcp"]
#
# [[pod]]
# name = "desk"
# template = "studio"
# gpu = "NVIDIA GeForce RTX 4090"
# volume = "models"
# stop_after = 28800      # seconds from its start, so that a forgotten pod ends
"""


def commented_file(release: str, image: str | None = None) -> str:
    """Return the file's text for a release and its image, or a placeholder that no plan takes."""
    return _FILE.format(name=release, image=image or f"ghcr.io/YOU/comfypin-{release}@sha256:{'0' * 64}")
