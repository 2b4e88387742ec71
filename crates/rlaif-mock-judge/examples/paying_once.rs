//! The large runs of "paying once"; `docs/benchmarks.md` has their figures.
//!
//! ```text
//! paying_once chaos N         N calls, a fifth of which fail in all ways; the mock's books against ours
//! paying_once kill N KILLS    N calls, killed -9 at KILLS random moments
//! paying_once throughput N    N short calls to a fast mock in another process
//! paying_once flight N        N calls in flight against a mock that takes five seconds, in another process
//! paying_once pace RPM S      S seconds against a mock with real buckets of RPM requests a minute
//! paying_once million N       N planned tasks: the time to plan, to the first call after a restart, and memory
//! ```

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on shall fail")]

#[path = "../tests/suite/paying/mod.rs"]
mod paying;

use paying::{Findings, Run, check, check_entries, plan};
use rlaif_core::config::Durability;
use rlaif_judge::LimitOptions;
use rlaif_mock_judge::{Entry, Group, Latency, MockJudge, Options, Weighted};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| words.get(at).map_or(default, |word| word.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Helping processes of these runs, which are killed, make no folder.
    match words.first().map(String::as_str) {
        Some("work") => return runtime.block_on(work(&words[1..])),
        Some("mock") => return runtime.block_on(mock(&words[1..])),
        _ => {}
    }
    let folder = tempfile::tempdir_in(std::env::var("PAYING_IN").unwrap_or_else(|_| ".".into())).unwrap();
    match words.first().map(String::as_str) {
        Some("chaos") => runtime.block_on(chaos(folder.path(), number(1, 50_000))),
        Some("kill") => runtime.block_on(kill(folder.path(), number(1, 20_000), number(2, 200))),
        Some("throughput") => runtime.block_on(throughput(folder.path(), number(1, 30_000))),
        Some("flight") => runtime.block_on(flight(folder.path(), number(1, 10_000))),
        Some("pace") => runtime.block_on(pace(folder.path(), number(1, 3000), number(2, 60))),
        Some("million") => runtime.block_on(million(folder.path(), number(1, 1_000_000))),
        _ => panic!("one of chaos, kill, throughput, flight, pace, million"),
    }
}

fn options() -> Options {
    Options { usd_per_million_input: 1.0, usd_per_million_output: 4.0, seed: 7, ..Options::default() }
}

async fn chaos(folder: &Path, n: usize) {
    let judge = MockJudge::start_on_thread(Options {
        chaos: 0.2,
        chaos_modes: vec![Weighted::group(Group::Transient), Weighted::group(Group::Content)],
        hang: Duration::from_secs(2),
        retry_after: 0.05,
        ..options()
    })
    .unwrap();
    let db = folder.join("rlaif.db");
    plan(&db, n).await.unwrap();
    let run = Run {
        concurrency: 200,
        timeout: Duration::from_secs(1),
        max_resends: 8,
        safe: Some(folder.join("safe")),
        ..Run::new(db, judge.base_url())
    };
    let start = Instant::now();
    let (summary, _) = run.to_the_end().await.unwrap();
    println!("{:.1} s, {summary:?}", start.elapsed().as_secs_f64());
    let found = check(&run.db, &judge, run.safe.as_deref()).await;
    let ended: u64 = ["judged", "failed"].iter().filter_map(|state| found.states.get(*state)).sum();
    assert_eq!(ended, found.requests, "every task reached its end");
    assert!(found.charged >= found.billed);
    show(&found);
    println!("modes met: {:?}", judge.ledger().summary().modes);
}

async fn kill(folder: &Path, n: usize, kills: usize) {
    let latency = Latency::Uniform(Duration::from_millis(1), Duration::from_millis(60));
    let judge = MockJudge::start_on_thread(Options { latency, ..options() }).unwrap();
    let db = folder.join("rlaif.db");
    plan(&db, n).await.unwrap();
    let mut killed = 0;
    let mut state = 88_172_645_463_325_252_u64;
    let start = Instant::now();
    while killed < kills {
        let mut child = worker(&db, &judge.base_url(), 32);
        // xorshift: the moments are the same in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        tokio::time::sleep(Duration::from_millis(20 + state % 400)).await;
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            println!("it came to its end after {killed} kills: take more calls");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    println!("{killed} kills in {:.1} s", start.elapsed().as_secs_f64());
    assert!(worker(&db, &judge.base_url(), 32).wait().unwrap().success());
    let found = check(&db, &judge, Some(&folder.join("safe"))).await;
    assert_eq!(found.states.get("judged"), Some(&(n as u64)));
    show(&found);
}

async fn throughput(folder: &Path, n: usize) {
    let db = folder.join("rlaif.db");
    plan(&db, n).await.unwrap();
    let (mut mock, url) = other_mock("0", None);
    for durability in [Durability::Power, Durability::Process] {
        let copy = folder.join(format!("{durability:?}.db"));
        std::fs::copy(&db, &copy).unwrap();
        let run = Run { concurrency: 128, durability, ..Run::new(copy, url.clone()) };
        let store = rlaif_store::Store::open_with(&run.db, durability).await.unwrap();
        let start = Instant::now();
        let (summary, _) = run.send(&store).await.unwrap();
        let sent = start.elapsed().as_secs_f64();
        paying::read(&store).await.unwrap();
        let all = start.elapsed().as_secs_f64();
        println!(
            "{durability:?}: {} replies, {:.0} a second sent and stored, {:.0} a second with their verdicts read and stored",
            summary.replied,
            summary.replied as f64 / sent,
            summary.replied as f64 / all
        );
    }
    mock.kill().unwrap();
    mock.wait().unwrap();
}

async fn flight(folder: &Path, n: usize) {
    let needed = n as u64 + 256;
    assert!(rlimit::increase_nofile_limit(needed).unwrap() >= needed, "too few files may be open");
    let db = folder.join("rlaif.db");
    plan(&db, 3 * n).await.unwrap();
    let calls = folder.join("calls.jsonl");
    let (mut mock, url) = other_mock("5000", Some(&calls));
    let run = Run { concurrency: n, timeout: Duration::from_secs(120), ..Run::new(db, url) };
    let before = memory("VmRSS");
    let start = Instant::now();
    let (summary, _) = run.to_the_end().await.unwrap();
    println!(
        "{} replies, {} retries, {} given up in {:.1} s; memory {} MB before, {} MB at most",
        summary.replied,
        summary.retries,
        summary.given_up,
        start.elapsed().as_secs_f64(),
        before >> 10,
        memory("VmHWM") >> 10
    );
    mock.kill().unwrap();
    mock.wait().unwrap();
    let entries = read_calls(&calls);
    let mut moments: Vec<(u64, i64)> =
        entries.iter().flat_map(|entry| [(entry.received_us, 1), (entry.finished_us, -1)]).collect();
    moments.sort_unstable();
    let mut now = 0;
    let most = moments.iter().map(|(_, change)| {
        now += change;
        now
    });
    println!("{} calls in flight at most, as the mock saw it", most.max().unwrap());
    show(&check_entries(&run.db, &entries, None).await);
}

async fn pace(folder: &Path, rpm: usize, seconds: usize) {
    let a_minute = u32::try_from(rpm).unwrap();
    for (burst, configured) in [(60.0, true), (1.0, true), (60.0, false)] {
        let options = Options { requests_per_minute: Some(a_minute), burst_seconds: burst, ..options() };
        let judge = MockJudge::start_on_thread(options).unwrap();
        let db = folder.join(format!("{burst}-{configured}.db"));
        plan(&db, rpm * seconds / 60).await.unwrap();
        let limits =
            LimitOptions { requests_per_minute: configured.then_some(a_minute), ..LimitOptions::default() };
        let run = Run { limits, concurrency: 64, ..Run::new(db, judge.base_url()) };
        run.to_the_end().await.unwrap();
        let entries = judge.ledger().entries();
        let refused = entries.iter().filter(|entry| entry.status == Some(429)).count();
        let first = entries.iter().map(|entry| entry.received_us).min().unwrap();
        let last = entries.iter().map(|entry| entry.received_us).max().unwrap();
        let rate = (entries.len() - refused - 1) as f64 / ((last - first) as f64 / 6e7);
        println!(
            "bucket of {burst} s, limit {}: {rate:.0} of {rpm} requests a minute ({:.1} %), {refused} refused",
            if configured { "configured" } else { "learnt from headers" },
            100.0 * rate / rpm as f64
        );
    }
}

async fn million(folder: &Path, n: usize) {
    let db = folder.join("rlaif.db");
    let start = Instant::now();
    plan(&db, n).await.unwrap();
    println!(
        "{n} tasks planned in {:.1} s, {} MB, memory {} MB",
        start.elapsed().as_secs_f64(),
        std::fs::metadata(&db).unwrap().len() >> 20,
        memory("VmHWM") >> 10
    );
    for time in 1..=3 {
        let calls = folder.join(format!("calls{time}.jsonl"));
        let (mut mock, url) = other_mock("20", Some(&calls));
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        let mut child = worker(&db, &url, 64);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        mock.kill().unwrap();
        mock.wait().unwrap();
        let entries = read_calls(&calls);
        let first = entries.iter().map(|entry| entry.received_us).min().unwrap();
        let most = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        println!(
            "start {time}, killed -9 after 10 s: first call {:.2} s after the start of the process, {} calls, {most}",
            (first - began) as f64 / 1e6,
            entries.len()
        );
    }
}

/// A process that works on a ledger until it is done or killed.
fn worker(db: &Path, url: &str, concurrency: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("work").arg(db).arg(url).arg(concurrency.to_string()).spawn().unwrap()
}

async fn work(words: &[String]) {
    let db = Path::new(&words[0]);
    let run = Run {
        concurrency: words[2].parse().unwrap(),
        max_resends: 1000,
        safe: Some(db.with_file_name("safe")),
        ..Run::new(db.into(), words[1].clone())
    };
    run.to_the_end().await.unwrap();
}

/// A mock in a process of its own, and its URL.
fn other_mock(latency_ms: &str, calls: Option<&Path>) -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("mock").arg(latency_ms);
    if let Some(calls) = calls {
        command.arg(calls);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    (child, url.trim().to_owned())
}

async fn mock(words: &[String]) {
    rlimit::increase_nofile_limit(200_000).unwrap();
    let latency = Latency::Fixed(Duration::from_millis(words[0].parse().unwrap()));
    let ledger = words.get(1).map(Into::into);
    let judge = MockJudge::start(Options { latency, ledger, forget_calls: true, ..options() }).await.unwrap();
    println!("{}", judge.base_url());
    std::future::pending::<()>().await;
}

fn read_calls(path: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Kilobytes, of this process.
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn show(found: &Findings) {
    println!("{found:#?}");
}
