//! Integration tests, one binary: the real server over real sockets.
#![allow(clippy::unwrap_used)]

mod api_engine;
mod api_hash_check;
mod api_inputs;
mod api_limits;
mod api_match;
mod api_publish;
mod api_register;
mod api_routes;
mod api_server;
mod api_snapshot;
mod api_watch;
mod cluster_bad_input;
mod cluster_cap;
mod cluster_damage;
mod cluster_engines;
mod cluster_forms;
mod cluster_lost_tail;
mod cluster_members;
mod cluster_restart;
mod cluster_rig;
mod hash_mirrors;
mod ingest_answers;
mod ingest_bad_input;
mod ingest_endpoints;
mod ingest_faults;
mod ingest_killed;
mod ingest_load;
mod ingest_node;
mod ingest_recordings;
mod ingest_rig;
mod ingest_standby;
mod recorded_engines;
