//! nginx, whose settings are replaced while it runs.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Signal, geteuid};

use crate::Result;
use crate::http::{HttpClient, PADDING, get};
use crate::outage::Subject;
use crate::server::{Farewell, Manner, Programs, Server, free_address};

/// What it does with requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Answers.
    Healthy,
    /// 503, with a Retry-After of so many seconds.
    Unavailable(u32),
    /// Closes the connection without a byte.
    Closing,
    /// 429 beyond so many requests a second.
    Limited(u32),
}

const HEALTHY: &str = "return 200 \"PADDING$http_x_call\";";
const LIMITED: &str =
    "limit_req zone=calls burst=5 nodelay; limit_req_status 429; proxy_pass http://$server_addr:$server_port/healthy;";

impl Mode {
    /// The directives.
    fn location(self) -> String {
        match self {
            Self::Healthy => HEALTHY.replace("PADDING", &"x".repeat(PADDING)),
            Self::Unavailable(seconds) => format!("add_header Retry-After {seconds} always; return 503;"),
            Self::Closing => "return 444;".to_owned(),
            // What `return` says is said before any limit is looked at: another location has to say it.
            Self::Limited(_) => LIMITED.to_owned(),
        }
    }

    /// Requests a second, where they are limited.
    const fn rate(self) -> u32 {
        match self {
            Self::Limited(rate) => rate,
            _ => 1,
        }
    }
}

/// A line of its log.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// In milliseconds.
    pub(crate) at: f64,
    pub(crate) status: u16,
    pub(crate) method: String,
    pub(crate) call: u32,
}

/// The requests of each call, in order.
pub(crate) fn tries(log: &[Line]) -> BTreeMap<u32, Vec<&Line>> {
    log.iter().fold(BTreeMap::new(), |mut tries, line| {
        tries.entry(line.call).or_insert_with(Vec::new).push(line);
        tries
    })
}

/// The POSTs that it has seen more than once.
pub(crate) fn posts_again(log: &[Line]) -> usize {
    tries(log).values().filter(|tries| tries.len() > 1 && tries[0].method == "POST").count()
}

/// An nginx of our own.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    /// What the outage is.
    fault: Mode,
    server: Server,
    /// How often the settings have been replaced.
    generation: u32,
}

impl Nginx {
    /// One that is healthy.
    pub(crate) async fn start(programs: &Programs, folder: &Path, fault: Mode) -> Result<Self> {
        let address = free_address()?;
        configure(folder, address, Mode::Healthy, 0)?;
        let path = |name: &str| folder.join(name).display().to_string();
        let arguments = ["-p", &path(""), "-c", &path("nginx.conf"), "-e", &path("errors")].map(str::to_owned).into();
        let (log, farewell) = (folder.join("log"), Farewell::Terminate);
        let mut server = Server::start(&Manner { program: &programs.nginx, arguments, user: None, farewell, log })?;
        server.until_serving(async || get(address, "/generation").await.map(drop)).await?;
        Ok(Self { address, folder: folder.into(), fault, server, generation: 0 })
    }

    /// Has it reload its settings, and waits until that is done.
    pub(crate) async fn enter(&mut self, mode: Mode) -> Result<()> {
        self.generation += 1;
        let generation = self.generation.to_string();
        configure(&self.folder, self.address, mode, self.generation)?;
        self.server.signal(Signal::HUP)?;
        let address = self.address;
        let reloaded = async || match get(address, "/generation").await? {
            now if now == generation => Ok(()),
            now => Err(format!("still with its settings number {now}").into()),
        };
        self.server.until_serving(reloaded).await
    }

    /// What it has logged of the calls.
    pub(crate) fn log(&self) -> Result<Vec<Line>> {
        fs::read_to_string(self.folder.join("access"))?.lines().map(line).collect()
    }
}

fn line(text: &str) -> Result<Line> {
    let [at, status, method, call] = text.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("a line of nginx's log that is none: {text}").into());
    };
    Ok(Line {
        at: at.parse::<f64>()? * 1_000.0,
        status: status.parse()?,
        method: method.to_owned(),
        call: call.parse()?,
    })
}

fn configure(folder: &Path, address: SocketAddr, mode: Mode, generation: u32) -> Result<()> {
    let (here, location, healthy, rate) = (folder.display(), mode.location(), Mode::Healthy.location(), mode.rate());
    // Who isn't root can't be anybody else, and root's files may be for nobody else to read.
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let settings = format!(
        "{user}
daemon off;
worker_processes 1;
pid {here}/pid;
events {{}}
http {{
    log_format calls '$msec $status $request_method $http_x_call';
    access_log {here}/access calls;
    client_body_temp_path {here}/client;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    limit_req_zone $server_name zone=calls:1m rate={rate}r/s;
    server {{
        listen {address};
        server_name calls;
        keepalive_requests 1000000;
        location = /generation {{ access_log off; return 200 {generation}; }}
        location = /connections {{ access_log off; stub_status; }}
        location = /healthy {{ access_log off; {healthy} }}
        location / {{ {location} }}
    }}
}}
"
    );
    Ok(fs::write(folder.join("nginx.conf"), settings)?)
}

impl Subject for Nginx {
    type Client = HttpClient;

    fn client(&self) -> Result<HttpClient> {
        Ok(HttpClient::new(self.address))
    }

    async fn begin(&mut self) -> Result<()> {
        self.enter(self.fault).await
    }

    async fn end(&mut self) -> Result<()> {
        self.enter(Mode::Healthy).await
    }

    /// But for the one of ours.
    async fn connections(&mut self) -> Result<usize> {
        let status = get(self.address, "/connections").await?;
        let active = status.split_whitespace().nth(2).ok_or("no number of connections")?;
        Ok(active.parse::<usize>()?.saturating_sub(1))
    }

    async fn requests(&mut self) -> Result<Option<usize>> {
        Ok(Some(self.log()?.len()))
    }
}
