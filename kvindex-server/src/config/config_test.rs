//! Tests of loading and checking a configuration.
#![allow(clippy::unwrap_used, clippy::result_large_err)]

use super::cgroup::MemoryLimit;
use super::*;
use clap::FromArgMatches;
use figment::Jail;
use std::path::Path;

fn flags(given: &[&str]) -> RawConfig {
    let command = RawConfig::augment_args(clap::Command::new("test").no_binary_name(true));
    RawConfig::from_arg_matches(&command.try_get_matches_from(given).unwrap()).unwrap()
}

#[test]
fn every_key_is_shown_in_its_order() {
    let shown: Vec<&str> = Config::defaults().shown().into_iter().map(|(key, _)| key).collect();
    assert_eq!(shown, RawConfig::keys());
    assert!(shown.len() >= 31, "{shown:?}");
}

#[test]
fn a_key_that_means_nothing_is_refused_and_the_nearest_is_named() {
    Jail::expect_with(|jail| {
        jail.create_file("kvindex.toml", "max_bacth = 10\n")?;
        let error = Config::load(Some(Path::new("kvindex.toml")), &RawConfig::default()).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("max_bacth (") && error.contains("kvindex.toml"), "{error}");
        assert!(error.ends_with("there is no such key; is it max_batch?"), "{error}");
        jail.create_file("kvindex.toml", "colour = 1\n")?;
        let error = Config::load(Some(Path::new("kvindex.toml")), &RawConfig::default()).unwrap_err();
        assert!(error.to_string().ends_with("there is no such key"), "{error}");
        Ok(())
    });
}

#[test]
fn an_empty_variable_counts_as_not_set_and_a_wrong_kind_names_its_key() {
    Jail::expect_with(|jail| {
        jail.create_file("kvindex.toml", "max_batch = 10\n")?;
        jail.set_env("KVINDEX_MAX_BATCH", "");
        let loaded = Config::load(Some(Path::new("kvindex.toml")), &RawConfig::default()).unwrap();
        assert_eq!(loaded.config.limits.batch, 10);
        jail.set_env("KVINDEX_MAX_BATCH", "many");
        let error = Config::load(None, &RawConfig::default()).unwrap_err().to_string();
        assert!(error.contains("many") && error.to_lowercase().contains("max_batch"), "{error}");
        Ok(())
    });
}

#[test]
fn a_cap_follows_from_the_control_group_unless_somebody_sets_it() {
    Jail::expect_with(|_| {
        let granted = MemoryLimit { bytes: 2048 << 20, file: "memory.max".into() };
        let loaded = Config::load_under(None, &RawConfig::default(), Some(granted.clone())).unwrap();
        assert_eq!(loaded.config.limits.index_bytes, 432 << 20);
        let printed = loaded.print_config();
        let line =
            "max_index_bytes = 452984832  # 1/4 of what is beyond 320 MiB of memory.max, 2147483648 bytes";
        assert!(printed.contains(line), "{printed}");
        let small = MemoryLimit { bytes: 128 << 20, ..granted.clone() };
        let loaded = Config::load_under(None, &RawConfig::default(), Some(small)).unwrap();
        assert_eq!(loaded.config.limits.index_bytes, 16 << 20, "no less than makes sense");
        for (given, bytes) in [("0", 0), ("100000000", 100_000_000)] {
            let flags = flags(&["--max-index-bytes", given]);
            let loaded = Config::load_under(None, &flags, Some(granted.clone())).unwrap();
            assert_eq!(loaded.config.limits.index_bytes, bytes);
            assert!(
                loaded.print_config().contains(&format!("max_index_bytes = {bytes}  # --max-index-bytes"))
            );
        }
        let loaded = Config::load_under(None, &RawConfig::default(), None).unwrap();
        assert!(loaded.print_config().contains("max_index_bytes = 0  # default"));
        Ok(())
    });
}

#[test]
fn defaults_are_valid_and_local() {
    let config = Config::defaults();
    assert_eq!(config.listen.to_string(), DEFAULT_LISTEN);
    assert_eq!(config.snapshot, None);
}

#[test]
fn flags_win_over_environment_over_file_and_origins_are_shown() {
    Jail::expect_with(|jail| {
        jail.create_file("kvindex.toml", "max_batch = 10\nmax_streams = 11\nmax_candidates = 12\n")?;
        jail.set_env("KVINDEX_MAX_STREAMS", "21");
        jail.set_env("KVINDEX_MAX_CANDIDATES", "22");
        jail.set_env("KVINDEX_MAX_BACH", "1");
        let flags = flags(&["--max-candidates", "32"]);
        let loaded = Config::load(Some(Path::new("kvindex.toml")), &flags).unwrap();
        let limits = loaded.config.limits;
        assert_eq!((limits.batch, limits.streams, limits.candidates), (10, 21, 32));
        assert_eq!(loaded.unknown_variables, ["KVINDEX_MAX_BACH"]);
        let printed = loaded.print_config();
        for line in [
            "max_streams = 21  # KVINDEX_MAX_STREAMS",
            "max_candidates = 32  # --max-candidates",
            "listen = \"127.0.0.1:9590\"  # default",
        ] {
            assert!(printed.contains(line), "{line} not in\n{printed}");
        }
        assert!(printed.lines().any(|l| l.starts_with("max_batch = 10  # ") && l.ends_with("kvindex.toml")));
        Ok(())
    });
}

#[test]
fn errors_name_key_value_origin_and_range() {
    Jail::expect_with(|jail| {
        jail.set_env("KVINDEX_MAX_BATCH", "0");
        let error = Config::load(None, &RawConfig::default()).unwrap_err().to_string();
        assert_eq!(error, "max_batch = 0 (KVINDEX_MAX_BATCH): must be from 1 to 65536");
        Ok(())
    });
    for (given, parts) in [
        (flags(&["--listen", "nine"]), ["listen = nine", "address:port"]),
        (flags(&["--log-format", "xml"]), ["log_format = xml", "text, json"]),
        (flags(&["--snapshot-interval-s", "5"]), ["snapshot_interval_s = 5", "snapshot_path"]),
    ] {
        let error = Config::load(None, &given).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn static_workers_are_checked_like_registered_ones() {
    let file = "[[workers]]\nworker_id = \"a\"\nmodel = \"m\"\nendpoint = \"tcp://h:5557\"\n\
                [[workers]]\nworker_id = \"b\"\nmodel = \"m\"\nendpoint = \"tcp://:5557\"\n";
    Jail::expect_with(|jail| {
        jail.create_file("kvindex.toml", file)?;
        let error = Config::load(Some(Path::new("kvindex.toml")), &RawConfig::default()).unwrap_err();
        assert!(error.to_string().starts_with("workers[1].endpoint = worker \"b\""), "{error}");
        jail.create_file("kvindex.toml", &file.replace("//:", "//g:"))?;
        let loaded = Config::load(Some(Path::new("kvindex.toml")), &RawConfig::default()).unwrap();
        assert_eq!(loaded.config.workers.len(), 2);
        jail.create_file("kvindex.toml", "[[workers]]\nworker_id = \"a\"\nmodle = \"m\"\n")?;
        let error = Config::load(Some(Path::new("kvindex.toml")), &RawConfig::default()).unwrap_err();
        assert!(error.to_string().contains("modle"), "{error}");
        Ok(())
    });
}

#[test]
fn a_missing_file_is_an_error() {
    let error = Config::load(Some(Path::new("no/such.toml")), &RawConfig::default()).unwrap_err();
    assert!(error.to_string().contains("no/such.toml"), "{error}");
}
