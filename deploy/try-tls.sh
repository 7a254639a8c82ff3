#!/usr/bin/env bash
# Three nodes by the settings that the chart renders for TLS on every door, on one machine: peers that prove who they
# are, clients with a certificate and a token, probes and Prometheus without a certificate, a certificate replaced while
# the nodes run. Needs openssl beside what deploy/try.sh needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v openssl >/dev/null || { echo "SKIPPED: openssl is not installed."; exit 0; }
. deploy/processes.sh

peers_host=kvindex-peers.ai-inference.svc
public_host=kvindex.ai-inference.svc

authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
        -keyout "$work/$1.key" -out "$work/$1.crt" 2>/dev/null
}

# certificate AUTHORITY DIRECTORY NAMES
certificate() {
    mkdir -p "$work/tls/$2"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" \
        -keyout "$work/tls/$2/tls.key.new" -out "$work/request" 2>/dev/null
    openssl x509 -req -in "$work/request" -CA "$work/$1.crt" -CAkey "$work/$1.key" -CAcreateserial -days 1 \
        -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3") \
        -out "$work/tls/$2/tls.crt.new" 2>/dev/null
    cp "$work/$1.crt" "$work/tls/$2/ca.crt"
    mv "$work/tls/$2/tls.key.new" "$work/tls/$2/tls.key"
    mv "$work/tls/$2/tls.crt.new" "$work/tls/$2/tls.crt"
}

step "certificates, as cert-manager would make them, and a token"
authority servers-ca
authority peers-ca
authority clients-ca
certificate servers-ca public "DNS:kvindex,DNS:kvindex.ai-inference,DNS:$public_host,DNS:*.$peers_host"
certificate peers-ca peer "DNS:$peers_host,DNS:*.$peers_host"
certificate clients-ca router "DNS:router"
mkdir -p "$work/tls/clients" "$work/access"
cp "$work/clients-ca.crt" "$work/tls/clients/ca.crt"
"$kvindex" token new --help >/dev/null
"$kvindex" token new --name admin --rights read,publish,admin --tenants '*' --output json >"$work/token.json"
python3 - "$work" <<'PY'
import json, sys
work = sys.argv[1]
made = json.load(open(f"{work}/token.json"))
open(f"{work}/token", "w").write(made["token"])
open(f"{work}/access/access.toml", "w").write(made["entry"])
PY

step "three nodes, by the settings that the chart rendered"
rendered_settings tls | sed "s#/etc/kvindex/tls#$work/tls#; s#/etc/kvindex/access#$work/access#; /^discovery/d" >"$work/kvindex.toml"
cat "$work/kvindex.toml"
read -r p1 p2 p3 q1 q2 q3 m1 m2 m3 <<<"$(free_ports 9)"
n=0
for ports in "$p1 $q1 $m1" "$p2 $q2 $m2" "$p3 $q3 $m3"; do
    n=$((n + 1))
    read -r public peer metrics <<<"$ports"
    start "node-$n" "$kvindex" serve --config "$work/kvindex.toml" --listen "127.0.0.1:$public" \
        --metrics-listen "127.0.0.1:$metrics" --peer-listen "127.0.0.1:$peer" --data-dir "$work/data-$n" \
        --cluster-peers "127.0.0.1:$q1,127.0.0.1:$q2,127.0.0.1:$q3"
done

step "probes and Prometheus show no certificate"
resolve=()
for port in $m1 $m2 $m3; do resolve+=(--resolve "$public_host:$port:127.0.0.1"); done
for port in $m1 $m2 $m3; do
    until_true "the node at port $port ready" 60 \
        curl -fs --cacert "$work/servers-ca.crt" "${resolve[@]}" "https://$public_host:$port/readyz"
done
curl -fs --cacert "$work/servers-ca.crt" "${resolve[@]}" -H "authorization: Bearer $(cat "$work/token")" \
    "https://$public_host:$m1/metrics" | grep -m 2 '^kvindex_tls_certificate_expiry_seconds'

step "a client with certificate and token, and three without one of them"
ask() {
    "$kvindex" "$@" --server "https://127.0.0.1:$p1" --server-name "$public_host" --ca "$work/servers-ca.crt"
}
own=(--client-cert "$work/tls/router/tls.crt" --client-key "$work/tls/router/tls.key")
ask register w1 --model m "${own[@]}" --token-file "$work/token"
ask workers "${own[@]}" --token-file "$work/token"
refused() {
    local what=$1
    shift
    if "$@" >"$work/refused.log" 2>&1; then
        echo "let in: $what" >&2
        exit 1
    fi
    echo "$what: $(tr '\n' ' ' <"$work/refused.log")"
}
refused "no token" ask workers "${own[@]}"
refused "no certificate" ask workers --token-file "$work/token"
refused "plain HTTP" "$kvindex" workers --server "http://127.0.0.1:$p1" --token-file "$work/token"
# Whatever is answered: that there is an answer says that the certificate was taken.
knock() {
    curl -sS -m 3 -o /dev/null --cacert "$work/peers-ca.crt" --resolve "$peers_host:$q1:127.0.0.1" \
        --cert "$work/tls/$1/tls.crt" --key "$work/tls/$1/tls.key" "https://$peers_host:$q1/"
}
knock peer
refused "a client at the peers' port" knock router

step "a new certificate while the nodes run"
serial() {
    openssl s_client -connect "127.0.0.1:$m1" -servername "$public_host" </dev/null 2>/dev/null |
        openssl x509 -noout -serial
}
before=$(serial)
certificate servers-ca public "DNS:kvindex,DNS:kvindex.ai-inference,DNS:$public_host,DNS:*.$peers_host"
renewed() { [ "$(serial)" != "$before" ]; }
until_true "the new certificate" 30 renewed
echo "before $before, now $(serial)"

printf '\neverything came about\n'
