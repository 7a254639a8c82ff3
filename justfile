# Shortcuts; `just` lists them. CI runs `just verify`'s script directly, so just itself is optional.

# Show this list.
default:
    @just --list

# Everything CI checks. Changes nothing outside target/.
verify:
    bash .ci/run

# Format all code.
fmt:
    cargo fmt --all
    cargo fmt --manifest-path fuzz/Cargo.toml
    cargo fmt --manifest-path bench/peers/Cargo.toml

# All tests; a filter such as `just test sequencer` runs those that match.
test *filter:
    cargo test --workspace {{ filter }}

# Play a recording of real engines and compare every answer with the engines' own.
demo *args:
    cargo run --release --bin kvindex -- demo {{ args }}

# Render the chart's golden files and the plain manifests anew, and check all of deploy/ but the dashboard.
render:
    .ci/deploy-checks --write

# Go through a deployment as a new user would: chart, compose file, three nodes, discovery, an answer.
try:
    deploy/try.sh
    deploy/try-tls.sh

# Break things under a cluster of three real processes and print what clients noticed; as root, partitions and full disks too.
faults *args:
    cargo build --release --bin kvindex
    cargo run --release -p kvindex-faults -- {{ args }}

# Nodes, clients and engines on networks of every kind (root and `ip`)
networks *args:
    cargo build --bin kvindex
    cargo run -p kvindex-faults --bin kvindex-networks -- {{ args }}

# The index beside its peers, the recorded engines' ingest, three nodes beside one, on a quiet machine; writes docs/benchmarks/.
bench *args:
    cargo run --release -p kvindex-bench -- ingest --out docs/benchmarks/ingest.md
    cargo run --release -p kvindex-bench -- consensus-bytes --out docs/benchmarks/consensus-bytes.md
    cargo build --release --bin kvindex
    cargo run --release -p kvindex-bench -- replication --out docs/benchmarks/replication.md
    cargo run --release --manifest-path bench/peers/Cargo.toml --target-dir target/peers -- report {{ args }}

# What routing by kvindex gains on published traces (kvcache-ai/Mooncake, FAST25-release/traces): `just routing --trace conversation_trace.jsonl`; writes docs/benchmarks/routing.md.
routing *args:
    cargo run --release -p kvindex-bench -- routing --out docs/benchmarks/routing.md --plot docs/benchmarks/routing.svg {{ args }}

# The service beside Dynamo's standalone indexer: answers, times, memory of two real servers; writes docs/benchmarks/service.md.
bench-service *args:
    cargo build --release --bin kvindex
    cargo run --release --manifest-path bench/peers/Cargo.toml --target-dir target/peers -- service {{ args }}

# Instruction counts beside the peers', under valgrind; writes docs/benchmarks/instructions.md.
bench-instructions *args:
    cargo run --release --manifest-path bench/peers/Cargo.toml --target-dir target/peers -- instructions {{ args }}

# The one module with unsafe code, and readers beside a writer, under AddressSanitizer. Needs a nightly toolchain.
sanitize:
    RUSTFLAGS=-Zsanitizer=address cargo +nightly test -p kvindex-core --target-dir target/sanitize --target "$(rustc -vV | sed -n 's/^host: //p')" --lib reader_lock
    RUSTFLAGS=-Zsanitizer=address cargo +nightly test -p kvindex-core --target-dir target/sanitize --target "$(rustc -vV | sed -n 's/^host: //p')" --test it beside_a_writer

# The log store's crash rounds: 20 each of killed processes, losses of power and torn writes. Needs a C compiler.
crash-rounds:
    cargo test -p kvindex-core --features replication --test log_store -- --ignored --exact --nocapture crash::twenty_rounds_lose_nothing

# Live through simulated clusters under every fault, seed by seed; `just sim --seed 7` replays one with its trace.
sim *args="--seeds 1000":
    cargo sim {{ args }}

# Feed random bytes to everything that takes bytes from outside. Needs a nightly toolchain and `cargo install cargo-fuzz`.
fuzz seconds="60":
    for target in decode entry http dialect grpc config snapshot; do cargo +nightly fuzz run $target -- -max_total_time={{ seconds }} || exit 1; done

# The same with so many inputs for each, 10 million unless told otherwise; without nightly by `just inputs`.
fuzz-all count="10000000":
    #!/usr/bin/env bash
    set -euo pipefail
    if rustup toolchain list | grep -q nightly && cargo fuzz --version >/dev/null 2>&1; then
        for target in decode entry http dialect grpc config snapshot; do
            cargo +nightly fuzz run "$target" -- -runs={{ count }}
        done
    else
        echo "no nightly toolchain or no cargo-fuzz: random changes of inputs that are in order instead"
        just inputs {{ count }}
    fi

# So many random changes of inputs that are in order through the entry points of the fuzz targets, on any toolchain, optimised.
inputs count="10000000":
    KVINDEX_INPUTS={{ count }} cargo test --release --workspace --test inputs -- --nocapture

# The index against the naive model on so many random histories, optimised; `just test` runs 10,000.
histories count="1000000":
    KVINDEX_HISTORIES={{ count }} cargo test --release -p kvindex-core --test it against_naive

# Three real nodes at full ingest, fleets that come and go, a tenant under a memory cap: is memory flat, are answers right?
soak-cluster minutes="30" *flags:
    cargo build --release --bin kvindex
    cargo run --release -p kvindex-faults -- --loopback --soak --minutes {{ minutes }} {{ flags }}

# The randomised tests, again and again with new seeds, until one fails or the minutes are over.
soak minutes="30":
    #!/usr/bin/env bash
    set -euo pipefail
    end=$((SECONDS + {{ minutes }} * 60))
    round=0
    while [ "$SECONDS" -lt "$end" ]; do
        round=$((round + 1))
        echo "==== round $round, $((end - SECONDS))s left"
        cargo test -p kvindex-core --test it exactness
        cargo test -p kvindex-server --lib simulation
        cargo test -p kvindex-server --test it faults
    done
