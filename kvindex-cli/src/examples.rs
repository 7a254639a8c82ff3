//! What people copy from: an example under every command's help. In one place, so that one glance shows whether they
//! still fit together.

use clap::{Command, CommandFactory};

use crate::args::Cli;

/// By command, with its subcommand where it has some.
const EXAMPLES: [(&[&str], &str); 27] = [
    (&["serve"], "kvindex serve --listen 127.0.0.1:9590\n  kvindex serve --config kvindex.toml"),
    (&["demo"], "kvindex demo --stay --listen 127.0.0.1:9590"),
    (
        &["match"],
        "kvindex match --model llama --tokens 1,2,3\n  \
         kvindex match --model llama --tokens-file prompt.json --top 3 --output json\n  \
         kvindex match --model llama --text-file prompt.txt --tokenizer tokenizer.json",
    ),
    (
        &["explain"],
        "kvindex explain --model llama --tokens-file prompt.json\n  \
         kvindex explain --model llama --tokens-file prompt.json --worker vllm-0 --table",
    ),
    (&["top"], "kvindex top --sort lag\n  kvindex top --once --filter suspect"),
    (&["workers"], "kvindex workers --model llama"),
    (
        &["register"],
        "kvindex register vllm-0 --model llama --address 10.0.0.7:8000 --endpoint tcp://10.0.0.7:5557 \
         --replay-endpoint tcp://10.0.0.7:5558",
    ),
    (&["unregister"], "kvindex unregister vllm-0"),
    (&["cluster"], "kvindex cluster status"),
    (&["cluster", "status"], "kvindex cluster status --digests"),
    (&["cluster", "remove"], "kvindex cluster remove 3 --dry-run"),
    (&["cluster", "promote"], "kvindex cluster promote 4"),
    (&["cluster", "demote"], "kvindex cluster demote 4 --yes"),
    (&["cluster", "transfer"], "kvindex cluster transfer 0 --to 2"),
    (&["config"], "kvindex config show --changed"),
    (&["config", "show"], "kvindex config show listen max_index_bytes --config kvindex.toml"),
    (&["config", "check"], "kvindex config check --config kvindex.toml"),
    (&["config", "keys"], "kvindex config keys > configuration.md"),
    (&["doctor"], "kvindex doctor --config kvindex.toml"),
    (&["discover"], "kvindex discover --discovery-pod-selector openfuyao.com/engine=vllm --explain"),
    (&["watch"], "kvindex watch --worker vllm-0 --count 10"),
    (&["replay"], "kvindex replay recording/cases/basic --linger 600 --register http://127.0.0.1:9590"),
    (&["dump"], "kvindex dump --snapshot data/index.snapshot --totals"),
    (&["token"], "kvindex token new --name router --tenants acme --rights read"),
    (&["token", "new"], "kvindex token new --name router --tenants acme --rights read"),
    (&["completions"], "kvindex completions bash > /etc/bash_completion.d/kvindex"),
    (&["man"], "kvindex man --dir /usr/local/share/man/man1"),
];

/// The command line with an example under each command's help.
pub(crate) fn command() -> Command {
    let mut command = Cli::command();
    for (path, text) in EXAMPLES {
        command = with_example(command, path, text);
    }
    command
}

fn with_example(command: Command, path: &[&str], text: &str) -> Command {
    match path {
        [] => command.after_help(format!("Examples:\n  {text}")),
        [name, rest @ ..] => command.mut_subcommand(*name, |command| with_example(command, rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &Command, path: &str) {
        for command in command.get_subcommands() {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&path), "`{path}` has no example of itself: {help:?}");
            check(command, &path);
        }
    }

    #[test]
    fn every_command_has_an_example_of_itself() {
        check(&command(), "kvindex");
    }

    /// Each line of each example, as a shell would split it, is taken by the parser itself.
    #[test]
    fn every_example_is_a_command_line_that_is_taken() {
        for (_, text) in EXAMPLES {
            for line in text.lines() {
                let line = line.split(" > ").next().unwrap_or_default();
                let parsed = command().try_get_matches_from(line.split_whitespace());
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
            }
        }
    }
}
