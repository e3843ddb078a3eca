# Install the OS packages given as arguments, and make the user `comfy` (1000) with its folders.
set -eu
. /media/settle.sh
begin
for package; do
    # What the base has is left as it is: an upgrade of the day would change the layer.
    shift
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || set -- "$@" "$package"
done
if [ $# -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
fi
groupadd --gid 1000 comfy
useradd --uid 1000 --gid 1000 --no-log-init --home-dir /home/comfy --shell /bin/sh comfy
mkdir -p /home/comfy /opt/comfy/models /app/lockfiles /app/workflows
chown -R comfy:comfy /home/comfy /opt/comfy
settle
