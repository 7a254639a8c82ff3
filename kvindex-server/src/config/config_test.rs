//! Tests of loading and checking a configuration.
#![allow(clippy::unwrap_used, clippy::result_large_err)]

use super::*;
use figment::Jail;

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
        let flags = RawConfig { max_candidates: Some(32), ..RawConfig::default() };
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
    for (flags, parts) in [
        (
            RawConfig { listen: Some("nine".into()), ..RawConfig::default() },
            ["listen = nine", "address:port"],
        ),
        (
            RawConfig { log_format: Some("xml".into()), ..RawConfig::default() },
            ["log_format = xml", "text, json"],
        ),
        (
            RawConfig { snapshot_interval_s: Some(5), ..RawConfig::default() },
            ["snapshot_interval_s = 5", "snapshot_path"],
        ),
    ] {
        let error = Config::load(None, &flags).unwrap_err().to_string();
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
