//! What another indexer's form of a question costs beside the native one: the same prompt over the same kind of
//! connection, call about, in one run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use kvindex_server::App;
use kvindex_server::config::{Config, MooncakeJson};
use tokio::net::TcpListener;

use crate::prompt::{BLOCK, MODEL, fill, some_tokens};
use crate::stopwatch::{median, timed};

/// Calls of each form in a round.
const CALLS: usize = 50;

/// The native question comes first, and each other form is held against it.
struct Form {
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    /// What a right answer holds.
    wanted: String,
    times: Vec<Duration>,
}

/// Prints medians and ratios.
pub(crate) async fn run(tokens: usize, rounds: usize) -> anyhow::Result<()> {
    let mut config = Config::defaults();
    (config.dialects.mooncake, config.dialects.dynamo) = (Some(MooncakeJson::Rfc), true);
    let server = App::start(config, TcpListener::bind("127.0.0.1:0").await?).await?;
    let ids = some_tokens(tokens);
    fill(&server, &ids)?;
    let address = server.local_addr();
    let done = tokio::task::spawn_blocking(move || ask(address, forms(&ids)?, rounds)).await?;
    let forms = done?;
    server.shutdown().await?;
    println!("match of {tokens} tokens over HTTP/1.1, {} calls of each form", rounds * CALLS);
    println!("| form | median µs | least | greatest | beside native |\n|---|---|---|---|---|");
    let native = forms.first().map_or(Duration::ZERO, |form| median(form.times.clone()).0);
    for form in forms {
        let (middle, least, greatest) = median(form.times);
        let ratio = middle.as_secs_f64() / native.as_secs_f64().max(1e-9);
        let (middle, least, greatest) = (middle.as_micros(), least.as_micros(), greatest.as_micros());
        println!("| {} | {middle} | {least} | {greatest} | {ratio:.2} |", form.name);
    }
    Ok(())
}

fn forms(ids: &[u32]) -> anyhow::Result<Vec<Form>> {
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let matched = ids.len() / BLOCK * BLOCK;
    let form = |name, path, content_type, body: Vec<u8>, wanted: &str| Form {
        name,
        path,
        content_type,
        body,
        wanted: format!("{wanted}{matched}"),
        times: Vec::new(),
    };
    let json = "application/json";
    let native = format!("{{\"prompt\":{{\"model\":\"{MODEL}\",\"token_ids\":[{list}]}}}}");
    let mooncake = format!("{{\"model\":\"{MODEL}\",\"block_size\":{BLOCK},\"token_ids\":[{list}]}}");
    let dynamo = format!("{{\"model_name\":\"{MODEL}\",\"token_ids\":[{list}]}}");
    let mut packed = form("Mooncake, MessagePack", "/query", "application/msgpack", packed(ids)?, "");
    packed.wanted = "longest_matched".into();
    let longest = "\"longest_matched\":";
    Ok(vec![
        form("native JSON", "/v1/match", json, native.into(), "\"matched_tokens\":"),
        form("Mooncake, JSON", "/query", json, mooncake.into(), longest),
        form("Dynamo, JSON", "/query", json, dynamo.into(), longest),
        packed,
    ])
}

fn packed(ids: &[u32]) -> anyhow::Result<Vec<u8>> {
    use rmp::encode::{write_bin, write_map_len, write_str, write_uint};
    let mut body = Vec::new();
    write_map_len(&mut body, 3)?;
    write_str(&mut body, "model")?;
    write_str(&mut body, MODEL)?;
    write_str(&mut body, "block_size")?;
    write_uint(&mut body, BLOCK as u64)?;
    write_str(&mut body, "token_ids")?;
    let words: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    write_bin(&mut body, &words)?;
    Ok(body)
}

/// Every form in turn, so that what disturbs one disturbs all.
fn ask(address: SocketAddr, mut forms: Vec<Form>, rounds: usize) -> anyhow::Result<Vec<Form>> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    for round in 0..=rounds * CALLS {
        for form in &mut forms {
            let (time, answer) = timed(|| call(&mut connection, form));
            let answer = answer?;
            let found = String::from_utf8_lossy(&answer).contains(&form.wanted);
            anyhow::ensure!(found, "{}: no {} in the answer", form.name, form.wanted);
            // The first is for warming up.
            if round > 0 {
                form.times.push(time);
            }
        }
    }
    Ok(forms)
}

/// One call on a connection that stays. Answers of a known length are all there are.
fn call(connection: &mut TcpStream, form: &Form) -> anyhow::Result<Vec<u8>> {
    let Form { path, content_type, body, .. } = form;
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    connection.write_all(head.as_bytes())?;
    connection.write_all(body)?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1 << 16]);
    loop {
        let count = connection.read(&mut piece)?;
        anyhow::ensure!(count > 0, "the connection ended");
        answer.extend_from_slice(piece.get(..count).unwrap_or_default());
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
        anyhow::ensure!(head.starts_with("http/1.1 200"), "{}: {head}", form.name);
        let told = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let length: usize = told.context("an answer without its length")?;
        if answer.len() >= end + 4 + length {
            return Ok(answer.split_off(end + 4));
        }
    }
}
