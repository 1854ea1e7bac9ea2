//! The upstream: a real HTTP server, in a process of its own, that lives through the script.
//!
//! It tells the parent over its standard output what it does and what it saw ([`News`]), waits for one line on its
//! standard input before the script begins, and exits when that input closes: it never outlives the parent.

use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::future::pending;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, Write as _};
use std::rc::Rc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Stdin};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use crate::client::SIDE_HEADER;
use crate::news::{News, Seen};
use crate::script::{Condition, Pace};
use crate::side::SideName;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How often the counters are told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// How long to leave an exhausted system alone.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Runs the upstream until standard input closes.
pub(crate) async fn run(pace: Pace, seed: u64) -> io::Result<()> {
    let input = &mut BufReader::new(tokio::io::stdin());
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.listen(BACKLOG)?;
    tell(News::Listening(listener.local_addr()?))?;
    if input.read_line(&mut String::new()).await? == 0 {
        return Ok(());
    }
    let desk = Rc::new(Desk::new(pace, seed));
    LocalSet::new()
        .run_until(async {
            tokio::select! {
                result = live(&desk, listener, pace) => result,
                // The parent may die without a word.
                _ = until_closed(input) => Ok(()),
                () = deaf_to_interrupts() => Ok(()),
            }
        })
        .await
}

async fn until_closed(input: &mut BufReader<Stdin>) -> io::Result<usize> {
    input.read_to_end(&mut Vec::new()).await
}

/// A terminal's Ctrl-C reaches this process, too, but it is the parent who decides when the run ends.
async fn deaf_to_interrupts() {
    while tokio::signal::ctrl_c().await.is_ok() {}
    pending::<()>().await;
}

/// Lives through the script, then stays as it is.
async fn live(desk: &Rc<Desk>, mut listener: TcpListener, pace: Pace) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut connections = JoinSet::new();
    let mut until = Instant::now();
    for (index, phase) in pace.phases().into_iter().enumerate() {
        until += phase.lasts;
        desk.enter(index, phase.condition)?;
        if phase.condition == Condition::Refusing {
            drop(listener);
            connections.shutdown().await;
            // Bound but not listening: connects are refused, and nobody else can take the port meanwhile.
            let reserved = listen(address)?;
            desk.tell_until(until).await?;
            listener = reserved.listen(BACKLOG)?;
            continue;
        }
        tokio::select! {
            () = accept(desk, &listener, &mut connections) => {}
            result = desk.tell_until(until) => result?,
        }
    }
    desk.tell_counters()?;
    tell(News::Done)?;
    accept(desk, &listener, &mut connections).await;
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Takes connections for ever.
async fn accept(desk: &Rc<Desk>, listener: &TcpListener, connections: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(serve(Rc::clone(desk), stream));
                }
                // Out of files, most likely: it passes when connections close.
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN_AFTER).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection until either end closes it, or the desk wants it reset.
async fn serve(desk: Rc<Desk>, stream: TcpStream) {
    let reset = &Notify::new();
    let is_new = &Cell::new(true);
    let desk = &*desk;
    let service = service_fn(move |request| async move {
        desk.count(&request, is_new.replace(false));
        Ok::<_, Infallible>(desk.answer(reset).await)
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that goes away in the middle is part of the game.
        _ = &mut connection => {}
        () = reset.notified() => {
            let stream = connection.into_parts().io.into_inner();
            // Closed with no time to linger, the socket sends RST. If it can't be set, the client sees FIN: broken, too.
            let _ = stream.set_zero_linger();
        }
    }
}

/// Where requests are counted and answered, as the script wants it.
#[derive(Debug)]
struct Desk {
    pace: Pace,
    random: RefCell<fastrand::Rng>,
    now: Cell<(usize, Condition)>,
    seen: Cell<[Seen; SideName::ALL.len()]>,
}

impl Desk {
    fn new(pace: Pace, seed: u64) -> Self {
        Self {
            pace,
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            now: Cell::new((0, Condition::Healthy)),
            seen: Cell::default(),
        }
    }

    /// Ends the counts of the phase before and begins another.
    fn enter(&self, index: usize, condition: Condition) -> io::Result<()> {
        self.tell_counters()?;
        self.now.set((index, condition));
        self.seen.take();
        tell(News::Phase(index))
    }

    async fn tell_until(&self, until: Instant) -> io::Result<()> {
        while Instant::now() < until {
            tokio::time::sleep_until(until.min(Instant::now() + TELL_EVERY)).await;
            self.tell_counters()?;
        }
        Ok(())
    }

    fn tell_counters(&self) -> io::Result<()> {
        let (phase, _) = self.now.get();
        for (side, seen) in SideName::ALL.into_iter().zip(self.seen.get()) {
            tell(News::Seen { phase, side, seen })?;
        }
        Ok(())
    }

    fn count(&self, request: &Request<Incoming>, on_new_connection: bool) {
        let header = request.headers().get(SIDE_HEADER);
        let side = header.and_then(|value| SideName::named(value.to_str().ok()?));
        // Somebody else on this machine: answered, not counted.
        let Some(side) = side else { return };
        let mut seen = self.seen.get();
        seen[side as usize].requests += 1;
        seen[side as usize].connections += u64::from(on_new_connection);
        self.seen.set(seen);
    }

    async fn answer(&self, reset: &Notify) -> Response<Full<Bytes>> {
        match self.now.get().1 {
            Condition::Healthy | Condition::Recovered => self.item_after(Duration::ZERO).await,
            Condition::Slow => self.item_after(self.pace.slowness()).await,
            Condition::Unavailable => self.unavailable(),
            Condition::Resetting => {
                reset.notify_one();
                pending().await
            }
            Condition::Refusing | Condition::Mute => pending().await,
        }
    }

    /// The item, after some work of 3 to 12 ms and a delay on top.
    async fn item_after(&self, delay: Duration) -> Response<Full<Bytes>> {
        let work = Duration::from_micros(self.random.borrow_mut().u64(3_000..12_000));
        tokio::time::sleep(work + delay).await;
        Response::new(Full::from("an item, fresh from the upstream\n"))
    }

    fn unavailable(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from("down for a moment\n"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let after = self.pace.retry_after();
        response.headers_mut().insert(RETRY_AFTER, after.into());
        response
    }
}

/// One line to the parent. Blocking, but the pipe is far larger than what is ever under way.
fn tell(news: News) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{news}")?;
    out.flush()
}
