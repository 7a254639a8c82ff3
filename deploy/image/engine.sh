# Sourced by the scripts that try the image: a Docker engine to talk to, one of their own where none runs.

work="$(mktemp -d)"
engine=""

skip() {
    echo "SKIPPED: $1; the image was NOT tried."
    exit 0
}

# `private` starts an engine of the script's own in any case, for networks that must not touch this machine's.
need_engine() {
    command -v docker >/dev/null || skip "docker is not installed"
    if [ "${1:-}" != private ] && docker info >/dev/null 2>&1; then
        return
    fi
    if ! command -v dockerd >/dev/null || [ "$(id -u)" != 0 ]; then
        skip "no docker engine of its own can be started (dockerd, root)"
    fi
    export DOCKER_HOST="unix://$work/docker.sock"
    local network=(--iptables=false --bridge=none)
    [ "${1:-}" = private ] && network=()
    dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" -H "$DOCKER_HOST" \
        "${network[@]}" >"$work/log" 2>&1 &
    engine=$!
    for _ in $(seq 100); do
        docker info >/dev/null 2>&1 && return
        sleep 0.3
    done
    tail -n 20 "$work/log" >&2
    exit 1
}

end_engine() {
    if [ -n "$engine" ]; then
        kill "$engine" && wait "$engine" 2>/dev/null || true
    fi
    rm -rf "$work" 2>/dev/null || true
}
