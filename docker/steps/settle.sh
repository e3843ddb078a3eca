# Sourced by the steps that make layers: `begin` before, `settle` after. What a step wrote gets one fixed time, and what
# package managers leave behind (lists, logs, caches) is removed, so that the layer depends on its input alone.
begin() {
    marker=$(mktemp -p /dev/shm)
    # A file system's clock is coarse: what the layer before wrote in this tick is not ours.
    sleep 0.05
    touch "$marker"
    sleep 0.05
}

settle() {
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache \
        /var/lib/dpkg/*-old /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /tmp/* /root/.cache
    find /var/log -type f -cnewer "$marker" -delete
    find / -xdev -cnewer "$marker" -exec touch --no-dereference --date="@1577836800" {} +
    rm -f "$marker"
}
