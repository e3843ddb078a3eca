# Realize the env of /build/env/lock.json as on any machine, and lay it out in /layers; "no": only empty folders.
set -eu
. /media/certificates.sh
mkdir -p /layers/torch /layers/packages /layers/comfyui /layers/nodes /layers/receipt
[ "$1" = yes ] || exit 0
if ! command -v git >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends git >/dev/null
fi
set -- realize /build/env/lock.json --home /opt/comfy --no-models
if [ -d /build/vendor/wheels ]; then set -- "$@" --vendor /build/vendor --offline; fi
/opt/comfypin/bin/comfypin "$@"
/opt/comfypin/bin/python -m comfypin.image.layers /opt/comfy /layers
