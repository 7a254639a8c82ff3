#!/usr/bin/env bash
# Goes through a deployment as a new user would, on one machine and without a cluster:
#   the chart is rendered; the compose file comes up where a Docker engine and the image are there; three nodes run by
#   the settings that the chart rendered, find recorded engines through a stand-in API server, and answer; an engine's
#   pod goes, and its blocks with it.
# Needs Rust, python3 and pip. KVINDEX_BIN and KUBEFAKE_BIN name binaries that are built already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/processes.sh

step "the chart, rendered and checked"
KVINDEX_BIN=$kvindex .ci/deploy-checks
rendered_settings infernex >"$work/kvindex.toml"
cat "$work/kvindex.toml"

step "the compose file"
if docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 && docker image inspect kvindex:0.1.0 >/dev/null 2>&1; then
    compose() { docker compose --project-name kvindex-try --file deploy/compose/compose.yaml "$@"; }
    compose up --detach --no-build
    until_true "three nodes ready" 60 sh -c 'for p in 9590 9690 9790; do curl -fs 127.0.0.1:$p/readyz || exit 1; done'
    "$kvindex" cluster status --server http://127.0.0.1:9690
    compose down --volumes
else
    echo "SKIPPED: no Docker engine with compose and the image kvindex:0.1.0 (deploy/image/build makes it)."
fi

read -r p1 p2 p3 q1 q2 q3 events replay <<<"$(free_ports 8)"
# Engine 1 takes the ports after engine 0's, so those must not be another's.
events=$((20000 + events % 10000)) replay=$((31000 + replay % 1000))

step "a stand-in API server with two engines' pods"
pod() {
    cat <<YAML
---
apiVersion: v1
kind: Pod
metadata:
  name: engine-$1
  labels: {inference-backend: "true", openfuyao.com/engine: vllm, openfuyao.com/model: demo-model}
spec:
  containers:
    - name: engine
      ports:
        - {name: http, containerPort: $((8000 + $1))}
        - {name: zmq-pub, containerPort: $((events + $1))}
        - {name: zmq-replay, containerPort: $((replay + $1))}
status:
  podIP: 127.0.0.1
  podIPs: [{ip: 127.0.0.1}]
YAML
}
{ pod 0; pod 1; } >"$work/pods.yaml"
start kubefake "$kubefake" --manifest "$work/pods.yaml" --kubeconfig "$work/kubeconfig"
until_true "a kubeconfig" 20 test -s "$work/kubeconfig"
export KUBECONFIG="$work/kubeconfig"
# As in a pod, which has its own name from the chart.
KVINDEX_ADVERTISE_PEER=kvindex-0.kvindex-peers.ai-inference.svc:9591 \
    "$kvindex" discover --config "$work/kvindex.toml" --explain

step "engines: a recording of real ones, waiting for subscribers"
start engines "$kvindex" replay recording/cases/basic --port "$events" --replay-port "$replay" --linger 600

step "three nodes, by the settings that the chart rendered"
n=0
for ports in "$p1 $q1" "$p2 $q2" "$p3 $q3"; do
    n=$((n + 1))
    read -r public peer <<<"$ports"
    start "node-$n" "$kvindex" serve --config "$work/kvindex.toml" --listen "127.0.0.1:$public" \
        --peer-listen "127.0.0.1:$peer" --cluster-peers "127.0.0.1:$q1,127.0.0.1:$q2,127.0.0.1:$q3" \
        --data-dir "$work/data-$n"
done
for port in $p1 $p2 $p3; do
    until_true "the node at port $port ready" 60 curl -fs "127.0.0.1:$port/readyz"
done
"$kvindex" cluster status --server "http://127.0.0.1:$p2" | head -n 8

known() { [ "$("$kvindex" workers --server "http://127.0.0.1:$2" --output json | grep -o '"worker_id"' | wc -l)" = "$1" ]; }

step "discovery"
for port in $p1 $p2 $p3; do until_true "two workers at port $port" 30 known 2 "$port"; done
"$kvindex" workers --server "http://127.0.0.1:$p3"

step "a question that the engines have seen"
cat >"$work/ask.py" <<'PY'
import gzip, json, sys, urllib.request
with gzip.open("recording/cases/basic.requests.jsonl.gz", "rt") as lines:
    prompts = [row["tokens"] for row in map(json.loads, lines) if "tokens" in row]
for tokens in reversed(prompts):
    body = json.dumps({"prompt": {"model": "demo-model", "token_ids": tokens}}).encode()
    with urllib.request.urlopen(sys.argv[1] + "/v1/match", data=body, timeout=5) as answer:
        workers = json.load(answer)["workers"]
    if any(worker["matched_blocks"] for worker in workers):
        for worker in workers:
            print(worker["worker_id"], "holds", worker["matched_tokens"], "of", len(tokens), "tokens,", worker["trust"]["state"])
        sys.exit(0)
sys.exit("no engine holds any prompt of the recording")
PY
for port in $p1 $p2 $p3; do
    until_true "a match at port $port" 60 python3 "$work/ask.py" "http://127.0.0.1:$port"
done
python3 "$work/ask.py" "http://127.0.0.1:$p3"

step "an engine's pod goes"
pod 0 >"$work/pods.yaml"
for port in $p1 $p2 $p3; do until_true "one worker left at port $port" 30 known 1 "$port"; done
"$kvindex" workers --server "http://127.0.0.1:$p1"

printf '\neverything came about\n'
