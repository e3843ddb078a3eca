# Write the list of what is in the image (CycloneDX), as its last layer: only now everything is there.
set -eu
. /media/settle.sh
begin
/opt/comfypin/bin/python -B -m comfypin.image.contents "/app/lockfiles/comfy-$1.lock.json" "/app/sbom/comfy-$1.cdx.json"
settle
