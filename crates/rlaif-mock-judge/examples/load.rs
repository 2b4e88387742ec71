//! How fast the mock judge is: `cargo run --release -p rlaif-mock-judge --example load -- throughput|in-flight [URL]`.
//!
//! `throughput` sends short completions over 64 connections for five seconds; `in-flight` sends 10,000 requests at once, which a
//! mock with `--latency 5s` all has in flight at the same time. Without a URL the mock runs in this process. The client is
//! bare: bytes out, bytes in, so that what is measured is the mock.

use rlaif_mock_judge::{Latency, MockJudge, Options};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 64;
const SECONDS: u64 = 5;
const IN_FLIGHT: usize = 10_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "throughput".into());
    let slow = what == "in-flight";
    let mut own = None;
    let address: SocketAddr = match arguments.next() {
        Some(url) => {
            url.trim_start_matches("http://").trim_end_matches('/').trim_end_matches("/v1").parse()?
        }
        None => {
            let latency = Latency::Fixed(Duration::from_secs(if slow { 5 } else { 0 }));
            let judge = own.insert(
                MockJudge::start(Options { latency, forget_calls: true, ..Options::default() }).await?,
            );
            judge.address()
        }
    };
    // Each end of a connection is a file when the mock runs in this process.
    #[cfg(unix)]
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    if slow { in_flight(address).await } else { throughput(address).await }
}

fn request(number: usize) -> Vec<u8> {
    let user = format!(
        "<request_00aa11bb22cc>\nQuestion {number}?\n</request_00aa11bb22cc>\n\n<response_1_00aa11bb22cc>\nOne thing and another.\n</response_1_00aa11bb22cc>\n\n<response_2_00aa11bb22cc>\nSomething else altogether.\n</response_2_00aa11bb22cc>\n\nWhich is better? End with `Better response: 1` or `Better response: 2`."
    );
    let body =
        serde_json::json!({"model": "m", "max_tokens": 200, "messages": [{"role": "user", "content": user}]});
    let body = body.to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: mock\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends one request and reads its reply to the end.
async fn call(stream: &mut TcpStream, number: usize, buffer: &mut Vec<u8>) -> Outcome<()> {
    stream.write_all(&request(number)).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the mock closed the connection".into());
        }
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head])?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.ok_or("a reply without a length")?.parse()?;
        if buffer.len() >= head + 4 + length {
            return if text.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(text.to_owned().into()) };
        }
    }
}

async fn throughput(address: SocketAddr) -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CONNECTIONS {
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut buffer, mut done) = (Vec::new(), 0);
            while Instant::now() < end {
                call(&mut stream, client + done * CONNECTIONS, &mut buffer).await?;
                done += 1;
            }
            Outcome::Ok(done)
        });
    }
    let mut total = 0;
    while let Some(done) = clients.join_next().await {
        total += done??;
    }
    println!("{total} calls in {SECONDS} s: {} a second", total as u64 / SECONDS);
    Ok(())
}

async fn in_flight(address: SocketAddr) -> Outcome<()> {
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..IN_FLIGHT {
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            call(&mut stream, number, &mut Vec::new()).await
        });
    }
    let mut failed = 0;
    while let Some(done) = clients.join_next().await {
        failed += usize::from(done?.is_err());
    }
    println!(
        "{IN_FLIGHT} calls in flight, {failed} failed, done after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
