//! The gateway from outside: its upstreams fail, its file changes, its clients leave, and it goes on.

#![expect(clippy::panic, reason = "a test may end with a panic")]

use core::net::SocketAddr;
use core::time::Duration;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

/// How long anything may take to come about on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that has brought its own upstreams, and somebody who asks it.
struct Gateway {
    child: Child,
    url: String,
    file: PathBuf,
    said: Receiver<String>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer: its status, its Retry-After, its body.
#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<u64>,
    body: String,
}

impl Gateway {
    /// With the upstreams that it brings along.
    fn start(name: &str) -> Self {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
        Self::start_with(&["--demo-file", &file.display().to_string()], file)
    }

    fn start_with(args: &[&str], file: PathBuf) -> Self {
        let mut child = Command::new(GATEWAY)
            .args(["--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (tell, said) = channel();
        let (out, err) = (child.stdout.take().expect("its output"), child.stderr.take().expect("its errors"));
        let (tell_out, tell_err) = (tell.clone(), tell);
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| tell_out.send(line))
        });
        thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).try_for_each(|line| tell_err.send(line))
        });
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut gateway = Self { child, url: String::new(), file, said, client };
        let line = gateway.says("listening at ");
        let url = line.split("listening at ").nth(1).and_then(|rest| rest.split(',').next());
        gateway.url = url.expect("an address").to_owned();
        gateway
    }

    /// The next line with these words.
    fn says(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.said.recv_timeout(left).unwrap_or_else(|_| panic!("it never said {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    async fn send(&self, method: Method, path: &str) -> Answer {
        self.send_body(method, path, Vec::new()).await
    }

    async fn send_body(&self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url)).body(Full::from(body));
        let response = self.client.request(request.expect("a request")).await.expect("the gateway always answers");
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().expect("text").parse());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("the whole of it").to_bytes();
        let body = String::from_utf8(body.into()).expect("text");
        Answer { status, retry_after: retry_after.map(|wait| wait.expect("a number")), body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path).await
    }

    async fn demo(&self, upstream: &str, mode: &str) {
        assert_eq!(self.send(Method::PUT, &format!("/-/demo/{upstream}/{mode}")).await.status, 200);
    }

    /// What it says of a route, once it says this.
    async fn until(&self, route: &str, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.get("/-/status").await.body;
            let line = status.lines().find(|line| line.starts_with(route)).unwrap_or_default();
            if line.contains(words) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "{route} is never {words:?}: {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The sum of a metric over all its series with these words.
    async fn metric(&self, name: &str, words: &[&str]) -> f64 {
        let text = self.get("/-/metrics").await.body;
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let lines = lines.filter(|line| words.iter().all(|word| line.contains(word)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    fn edit(&self, change: impl FnOnce(&str) -> String) {
        let text = fs::read_to_string(&self.file).expect("the file");
        let changed = change(&text);
        assert_ne!(text, changed, "nothing was changed");
        fs::write(&self.file, changed).expect("the file");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_fails_is_left_alone_and_found_again() {
    let gateway = Gateway::start("down");
    let served = gateway.get("/payments/7?x=1").await;
    assert!(served.status == 200 && served.body.starts_with("payments answers GET /payments/7?x=1"), "{served:?}");

    gateway.demo("payments", "down").await;
    let (mut reached, mut shed) = (0, 0);
    for _ in 0..50 {
        let answer = gateway.get("/payments/7").await;
        assert_eq!(answer.status, 503);
        match answer.retry_after {
            Some(wait) => {
                assert!((1..=3).contains(&wait), "no longer than the open period: {answer:?}");
                shed += 1;
            }
            None => reached += 1,
        }
    }
    // Five open it; a machine that is slow may see another probe or two.
    assert!((5..=10).contains(&reached) && shed >= 40, "{reached} reached the upstream, {shed} were shed");
    gateway.until("payments", "breaker Open").await;

    gateway.demo("payments", "up").await;
    let begun = Instant::now();
    while gateway.get("/payments/7").await.status != 200 {
        assert!(begun.elapsed() < PATIENCE, "it is never found again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gateway.until("payments", "breaker Closed").await;
    gateway.until("payments", "bulkhead 0 of 64 in use").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mute_upstream_is_a_timeout_and_holds_nobody_else_up() {
    let gateway = Gateway::start("mute");
    gateway.demo("payments", "mute").await;
    let calls = (0..5).map(|_| gateway.get("/payments/7"));
    let mute = futures_util::future::join_all(calls).await;
    assert!(mute.iter().all(|answer| answer.status == 504), "{mute:?}");
    gateway.until("payments", "breaker Open").await;
    assert_eq!(gateway.get("/payments/7").await.status, 503, "now it is not asked at all");
    assert_eq!(gateway.get("/catalog").await.status, 200, "and the others are as ever");
    gateway.until("payments", "bulkhead 0 of 64 in use").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_idempotent_is_tried_again_and_nothing_else_is() {
    let gateway = Gateway::start("flaky");
    for _ in 0..30 {
        let answer = gateway.get("/catalog").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut statuses = Vec::new();
    for _ in 0..9 {
        statuses.push(gateway.send(Method::POST, "/catalog").await.status);
    }
    assert_eq!(
        statuses.iter().filter(|status| **status == 503).count(),
        3,
        "every third, and each was sent once: {statuses:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let gateway = Gateway::start("limited");
    let mut shed = 0;
    for _ in 0..200 {
        let answer = gateway.get("/search").await;
        match (answer.status, answer.retry_after) {
            (200, None) => {}
            (429, Some(1)) => shed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(shed > 0, "all passed");
    let counted = gateway.metric("failsoft_call_rejections_total", &["name=\"search\"", "rate_exceeded"]).await;
    assert_eq!(counted, f64::from(shed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_read_again_and_a_wrong_one_changes_nothing() {
    let gateway = Gateway::start("reload");
    gateway.demo("payments", "down").await;
    gateway.edit(|text| text.replace("failures = 5, open_for = \"3s\"", "failures = 2, open_for = \"1h\""));
    gateway.says("has changed");
    assert_eq!([gateway.get("/payments").await, gateway.get("/payments").await].map(|it| it.retry_after), [None, None]);
    assert_eq!(gateway.get("/payments").await.retry_after, Some(3600), "two failures are enough now");

    gateway.edit(|text| text.replace("permits = 64", "permitz = 64"));
    let refused = gateway.says("all stays as it was");
    assert!(refused.contains("reload.toml") || gateway.says("permitz").contains("permits"), "{refused}");
    assert_eq!(gateway.get("/payments").await.status, 503, "still open");
    assert_eq!(gateway.get("/catalog").await.status, 200);

    gateway.edit(|text| text.replace("permitz = 64", "permits = 7").replace("path = \"/search\"", "path = \"/find\""));
    gateway.says("has changed");
    gateway.until("payments", "bulkhead 0 of 7 in use").await;
    gateway.until("payments", "breaker Open").await;
    assert_eq!((gateway.get("/search").await.status, gateway.get("/find").await.status), (404, 200));

    fs::remove_file(&gateway.file).expect("it was there");
    gateway.says("all stays as it was");
    assert_eq!(gateway.get("/find").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_counted_while_the_metrics_are_read_and_clients_leave() {
    let gateway = Gateway::start("counted");
    let calls = async {
        let mut served = 0;
        for round in 0..20 {
            let calls = futures_util::future::join_all((0..20).map(|_| gateway.get("/payments")));
            served += calls.await.iter().filter(|answer| answer.status == 200).count();
            // Others leave before they are answered.
            if round % 4 == 0 {
                let gone =
                    (0..10).map(|_| tokio::time::timeout(Duration::from_millis(1), gateway.get("/payments?slow")));
                futures_util::future::join_all(gone).await;
            }
        }
        served
    };
    let scrapes = async {
        loop {
            assert!(gateway.get("/-/metrics").await.body.contains("failsoft_"));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let served = tokio::select! { served = calls => served, () = scrapes => unreachable!("it goes on for ever") };
    assert_eq!(served, 400);
    gateway.until("payments", "bulkhead 0 of 64 in use, 0 waiting").await;
    let success = gateway.metric("failsoft_calls_total", &["name=\"payments\"", "success"]).await;
    assert_eq!(success, 400.0);
    let text = gateway.get("/-/metrics").await.body;
    let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    assert!(series < 500, "{series} series:\n{text}");
}

#[test]
fn a_bad_argument_or_file_is_refused_with_the_reason() {
    let run = |args: &[&str]| {
        let output = Command::new(GATEWAY).args(args).output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&["--listen", "here"]).0, Some(2));
    let (code, text) = run(&["--config", "/nowhere.toml"]);
    assert!(code == Some(1) && text.contains("/nowhere.toml"), "{text}");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("wrong.toml");
    for (content, words) in [
        ("", "there are no routes"),
        ("[routes.a]\npath = \"/a\"\nupstream = \"http://127.0.0.1:1\"", "there is no policy `a`"),
        ("[policies.a]\n[routes.a]\npath = \"/a\"\nupstream = \"https://x\"", "is no upstream"),
        ("[policies.a]\n[routes.a]\npath = \"a\"\nupstream = \"http://127.0.0.1:1\"", "is no path"),
        (
            "[policies.a]\ntimeout = \"soon\"\n[routes.a]\npath = \"/a\"\nupstream = \"http://127.0.0.1:1\"",
            "policies.a.timeout",
        ),
        ("[routes.a]\npaht = \"/a\"", "paht"),
    ] {
        fs::write(&file, content).expect("the file");
        let (code, text) = run(&["--listen", "127.0.0.1:0", "--config", &file.display().to_string()]);
        assert!(code == Some(1) && text.contains(words), "{content}: {text}");
    }
}

#[tokio::test]
async fn it_ends_when_it_is_interrupted() {
    let mut gateway = Gateway::start("ends");
    assert_eq!(gateway.get("/-/health").await.body, "well\n");
    let interrupted = Command::new("kill").args(["-INT", &gateway.child.id().to_string()]).status();
    assert!(interrupted.expect("it can be sent").success());
    let mut rest = String::new();
    if let Some(mut err) = gateway.child.stderr.take() {
        let _ = err.read_to_string(&mut rest);
    }
    assert!(gateway.child.wait().expect("it ends").success(), "{rest}");
}

/// An upstream of the test's own, that can be killed: it remembers each request with the length of its body, and answers by its path.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, usize)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Upstream {
    async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let (address, seen) = (listener.local_addr().expect("it has one"), Arc::<Mutex<Vec<_>>>::default());
        let all = seen.clone();
        let task = tokio::spawn(async move {
            // With the task go its connections.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, all.clone()));
            }
        });
        Self { address, seen, task }
    }

    /// The lengths of the bodies that came with this request.
    fn bodies(&self, request: &str) -> Vec<usize> {
        let seen = self.seen.lock().expect("nobody panicked");
        seen.iter().filter(|(line, _)| line == request).map(|(_, length)| *length).collect()
    }

    async fn kill(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

/// One request, and the end of the connection.
async fn answer(mut stream: TcpStream, seen: Arc<Mutex<Vec<(String, usize)>>>) {
    let mut read = Vec::new();
    let head = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).into_owned();
    let field =
        |name| text.lines().find_map(|line| line.to_lowercase().strip_prefix(name)?.trim().parse::<usize>().ok());
    if text.to_lowercase().contains("transfer-encoding: chunked") {
        // Nobody here sends one to its end.
        let _ = stream.read_to_end(&mut read).await;
        return;
    }
    let (length, mut got) = (field("content-length:").unwrap_or(0), read.len() - head - 4);
    let mut rest = [0; 16 * 1024];
    while got < length {
        match stream.read(&mut rest).await {
            Ok(more @ 1..) => got += more,
            _ => return,
        }
    }
    let line = text.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let status = match &*line {
        line if line.ends_with("/down") => "503 Down\r\ncontent-length: 0",
        line if line.ends_with("/cut") => "200 OK\r\ncontent-length: 100\r\n\r\nhalf of it",
        _ => "200 OK\r\ncontent-length: 0",
    };
    seen.lock().expect("nobody panicked").push((line, length));
    let end = if status.contains("\r\n\r\n") { "" } else { "\r\nconnection: close\r\n\r\n" };
    let _ = stream.write_all(format!("HTTP/1.1 {status}{end}").as_bytes()).await;
}

/// A gateway before it, at the root.
fn before(upstream: SocketAddr, name: &str) -> Gateway {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    let text = format!(
        r#"
        [policies.own]
        timeout = "5s"
        attempt_timeout = "2s"
        retry = {{ attempts = 2, delay = "10ms" }}
        bulkhead = {{ permits = 8 }}
        circuit_breaker = {{ failures = 6, open_for = "500ms", probes = 1 }}
        [routes.own]
        path = "/"
        upstream = "http://{upstream}"
        "#
    );
    fs::write(&file, text).expect("the file");
    Gateway::start_with(&["--config", &file.display().to_string()], file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_killed_is_missed_left_alone_and_found_again() {
    let upstream = Upstream::start("127.0.0.1:0".parse().expect("an address")).await;
    let gateway = before(upstream.address, "killed");
    assert_eq!(gateway.get("/ok").await.status, 200);
    let address = upstream.kill().await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(gateway.get("/ok").await.status);
    }
    let refused = statuses.iter().filter(|status| **status == 502).count();
    assert!((3..=6).contains(&refused), "three calls of two attempts each open it: {statuses:?}");
    assert!(statuses.iter().all(|status| [502, 503].contains(status)), "{statuses:?}");
    let again = Upstream::start(address).await;
    let begun = Instant::now();
    while gateway.get("/ok").await.status != 200 {
        assert!(begun.elapsed() < PATIENCE, "it is never found again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.until("own", "breaker Closed").await;
    gateway.until("own", "bulkhead 0 of 8 in use, 0 waiting").await;
    assert!(!again.bodies("GET /ok").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_kept_is_sent_again_and_a_longer_one_is_not() {
    let upstream = Upstream::start("127.0.0.1:0".parse().expect("an address")).await;
    let gateway = before(upstream.address, "bodies");
    for (length, sent) in [(1_000, 2), (64 * 1024, 2), (64 * 1024 + 1, 1), (1_000_000, 1)] {
        let answer = gateway.send_body(Method::PUT, "/down", vec![7; length]).await;
        assert_eq!(answer.status, 503);
        assert_eq!(upstream.bodies("PUT /down"), vec![length; sent], "{length}");
        upstream.seen.lock().expect("nobody panicked").clear();
        // So that the breaker stays closed.
        assert_eq!(gateway.send_body(Method::POST, "/ok", vec![7; length]).await.status, 200);
        assert_eq!(upstream.bodies("POST /ok"), [length]);
    }
    gateway.until("own", "bulkhead 0 of 8 in use, 0 waiting").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_breaks_off_at_the_client_too() {
    let upstream = Upstream::start("127.0.0.1:0".parse().expect("an address")).await;
    let gateway = before(upstream.address, "cut");
    let request = Request::get(format!("{}/cut", gateway.url)).body(Full::default()).expect("a request");
    let response = gateway.client.request(request).await.expect("the head is there");
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err(), "half of it is never taken for all of it");
    gateway.until("own", "bulkhead 0 of 8 in use, 0 waiting").await;
    assert_eq!(gateway.get("/ok").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_and_harms_nobody() {
    let upstream = Upstream::start("127.0.0.1:0".parse().expect("an address")).await;
    let gateway = before(upstream.address, "garbage");
    let address = gateway.url.trim_start_matches("http://").to_owned();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/1.1\r\nno field\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"GET /\x00 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(&address).await.expect("it listens");
        stream.write_all(garbage).await.expect("it takes it");
        stream.shutdown().await.expect("it can be ended");
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "it waits for more of {garbage:?}");
        let head = String::from_utf8_lossy(&answer);
        assert!(head.is_empty() || head.starts_with("HTTP/1.1 400"), "{head}");
    }
    // A client that promises more than it sends.
    let mut stream = TcpStream::connect(&address).await.expect("it listens");
    stream.write_all(b"PUT /ok HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf").await.expect("it takes it");
    drop(stream);
    assert_eq!(gateway.get("/ok").await.status, 200);
    gateway.until("own", "bulkhead 0 of 8 in use, 0 waiting").await;
    assert!(upstream.bodies("PUT /ok").is_empty(), "half of a body is never taken for all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_whose_requests_break_off_close_nobody_out() {
    let upstream = Upstream::start("127.0.0.1:0".parse().expect("an address")).await;
    let gateway = before(upstream.address, "clients");
    let address = gateway.url.trim_start_matches("http://").to_owned();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(&address).await.expect("it listens");
        let head = b"POST /ok HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n20000\r\n";
        stream.write_all(head).await.expect("it takes it");
        stream.write_all(&[7; 0x20000]).await.expect("it takes it");
        stream.write_all(b"\r\nthis is no length\r\n").await.expect("it takes it");
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
    }
    assert_eq!(gateway.get("/ok").await.status, 200, "the breaker is closed");
    gateway.until("own", "bulkhead 0 of 8 in use, 0 waiting").await;
}
