# Sourced by deploy/try*.sh: processes that end with the script, ports, waiting.

work="$(mktemp -d)"
pids=()

finish() {
    local status=$?
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ "$status" != 0 ]; then
        echo "FAILED; the logs:" >&2
        tail -n 15 "$work"/*.log >&2 || true
    fi
    rm -rf "$work"
}
trap finish EXIT

step() { printf '\n== %s\n' "$1"; }

# Runs a program in the background, with its output in a log.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 &
    pids+=($!)
}

until_true() {
    local what=$1 seconds=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "did not come about within $seconds s: $what" >&2
            return 1
        fi
        sleep 0.3
    done
}

free_ports() {
    python3 - "$1" <<'PY'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in held:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))
PY
}

# The binaries named by KVINDEX_BIN and KUBEFAKE_BIN, or built.
kvindex=${KVINDEX_BIN:-target/release/kvindex}
kubefake=${KUBEFAKE_BIN:-target/release/kubefake}
if [ -z "${KVINDEX_BIN:-}" ] || [ -z "${KUBEFAKE_BIN:-}" ]; then
    step "building kvindex and the stand-in API server"
    cargo build --release --locked -p kvindex-cli -p kubefake
fi

# The file of settings that the chart renders for one of its examples.
rendered_settings() {
    local helm=target/ci-tools/deploy/helm
    if [ ! -x "$helm" ]; then
        echo "SKIPPED: helm could not be fetched, and everything here rests on what it renders." >&2
        exit 0
    fi
    "$helm" template kvindex deploy/helm/kvindex --namespace ai-inference --values "deploy/helm/kvindex/values-$1.yaml" \
        --show-only templates/config.yaml | sed -n 's/^    //p' | sed -n '/^# Written/,$p'
}
