# Sourced by the steps that make layers: `begin` before, `settle` after. What a step wrote gets one fixed time, and what
# package managers leave behind (lists, logs, caches) is removed, so that the layer depends on its input alone.
export SOURCE_DATE_EPOCH=1577836800 PYTHONHASHSEED=0

traces() {
    find /var/lib/apt/lists /var/cache/apt /var/log /tmp /root/.cache /var/lib/dpkg/*-old /var/cache/debconf/*-old \
        /var/cache/ldconfig/aux-cache /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- \
        /etc/subuid- /etc/subgid- /etc/machine-id /var/lib/dbus/machine-id "$@" 2>/dev/null | sort
}

begin() {
    scratch=$(mktemp -d -p /dev/shm)
    traces >"$scratch/before"
    # A file system's clock is coarse: what the layer before wrote in this tick is not ours.
    sleep 0.05
    touch "$scratch/marker"
    sleep 0.05
}

settle() {
    # A trace that the base had too is emptied, not removed: a layer notes removals with the time of the build.
    traces ! -type d -cnewer "$scratch/marker" >"$scratch/written"
    comm -12 "$scratch/before" "$scratch/written" | while read -r path; do : >"$path"; done
    traces >"$scratch/after"
    comm -13 "$scratch/before" "$scratch/after" | while read -r path; do rm -rf "$path"; done
    find / -xdev -cnewer "$scratch/marker" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    rm -rf "$scratch"
}
