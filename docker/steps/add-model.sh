# Fetch the one model of /srv/lock.json to its place, verified. The tool is that of the stage mounted at /mnt.
set -eu
. /media/settle.sh
. /media/certificates.sh
for name in HF_TOKEN CIVITAI_TOKEN; do
    if [ -s "/run/secrets/$name" ]; then export "$name=$(cat "/run/secrets/$name")"; fi
done
begin
COMFY_HOME=/opt/comfy \
    /mnt/opt/comfypin/bin/python -m comfypin.cli.main models pull --lock /srv/lock.json
chown -R 1000:1000 /opt/comfy/models
settle
