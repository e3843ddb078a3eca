# Fetch the one model of /build/model/lock.json, verified, and lay it out as a layer.
set -eu
. /media/certificates.sh
for name in HF_TOKEN CIVITAI_TOKEN; do
    if [ -s "/run/secrets/$name" ]; then export "$name=$(cat "/run/secrets/$name")"; fi
done
home=/layers/model/opt/comfy
COMFY_HOME="$home" /opt/comfypin/bin/comfypin models pull --lock /build/model/lock.json
# It was hashed while it came: no container needs to do it again.
/opt/comfypin/bin/python -B -m comfypin.image.model_receipts "$home/models/.comfypin"
# Notes of who fetched what, and when, are this machine's.
find "$home/models/.comfypin" -mindepth 1 -maxdepth 1 ! -name blobs ! -name receipts -exec rm -rf {} +
chown -R 1000:1000 "$home"
