//! One run: starts the upstream, puts the load on both sides, and follows what happens.

use core::time::Duration;
use std::sync::Arc;

use failsoft_tokio::ConfigError;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::args::Args;
use crate::bands::Bands;
use crate::child::{Upstream, UpstreamError};
use crate::client::Client;
use crate::load::Load;
use crate::naked::Naked;
use crate::news::{News, Seen};
use crate::protected::Protected;
use crate::record::Record;
use crate::script::{Condition, Pace};
use crate::side::{Breaker, Level, Side, SideName, Vitals};
use crate::view::View;

/// How often a side's vitals are read.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often the view is drawn, in looks.
const LOOKS_PER_FRAME: u32 = 5;

/// Why a run could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The upstream failed in a way that is not in the script.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The policies' settings make no sense.
    #[error("the policies can't be made")]
    Policies(#[from] ConfigError),
    /// The terminal, or whatever took its place, went away.
    #[error("the progress could not be shown")]
    View(#[from] std::io::Error),
    /// A load generator crashed.
    #[error("the load generator crashed")]
    Load(#[from] tokio::task::JoinError),
}

/// What is known of a run, while it lasts and afterwards.
#[derive(Debug)]
pub(crate) struct Story {
    /// The pace.
    pub(crate) pace: Pace,
    /// How long it has lasted, or did last.
    pub(crate) elapsed: Duration,
    /// Whether the user ended it early.
    pub(crate) interrupted: bool,
    /// What the upstream did.
    pub(crate) upstream: Bands<Condition>,
    /// What the protected side's breaker did.
    pub(crate) breaker: Bands<Breaker>,
    /// At which level the protected side served.
    pub(crate) level: Bands<Level>,
    /// Both sides, in the order of [`SideName::ALL`].
    pub(crate) sides: [SideStory; SideName::ALL.len()],
}

/// What is known of a side.
#[derive(Debug)]
pub(crate) struct SideStory {
    /// Which one.
    pub(crate) name: SideName,
    /// What became of its requests.
    pub(crate) record: Arc<Record>,
    /// What the upstream saw of it, by phase.
    pub(crate) seen: Vec<Seen>,
    /// Its calls to which nobody listened.
    pub(crate) refused: u64,
    /// How it is doing, if it tells.
    pub(crate) vitals: Option<Vitals>,
}

impl Story {
    fn new(start: Instant, pace: Pace) -> Self {
        let total = pace.total();
        let phases = pace.phases().len();
        Self {
            pace,
            elapsed: Duration::ZERO,
            interrupted: false,
            upstream: Bands::default(),
            breaker: Bands::default(),
            level: Bands::default(),
            sides: SideName::ALL.map(|name| SideStory {
                name,
                record: Record::new(start, total),
                seen: vec![Seen::default(); phases],
                refused: 0,
                vitals: None,
            }),
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Phase(phase) => {
                if let Some(phase) = self.pace.phases().get(phase) {
                    self.upstream.note(self.elapsed, phase.condition);
                }
            }
            News::Seen { phase, side, seen } => {
                let cell = self.sides[side as usize].seen.get_mut(phase);
                if let Some(cell) = cell {
                    *cell = seen;
                }
            }
            News::Listening(_) | News::Done => {}
        }
    }

    fn look(&mut self, parties: &Parties) {
        self.upstream.extend(self.elapsed);
        let vitals = [parties.naked.vitals(), parties.protected.vitals()];
        let clients = [&parties.naked_client, &parties.protected_client];
        for ((side, vitals), client) in self.sides.iter_mut().zip(vitals).zip(clients) {
            side.vitals = vitals;
            side.refused = client.refused();
        }
        if let Some(vitals) = parties.protected.vitals() {
            self.breaker.note(self.elapsed, vitals.breaker);
            self.level.note(self.elapsed, vitals.level);
        }
    }
}

/// The two sides, and the clients whose refused calls only they can count.
#[derive(Debug)]
struct Parties {
    naked_client: Client,
    protected_client: Client,
    naked: Arc<Naked>,
    protected: Arc<Protected>,
}

impl Parties {
    fn new(upstream: &Upstream, args: &Args) -> Result<Self, ConfigError> {
        let naked_client = Client::new(upstream.address(), SideName::Naked);
        let protected_client = Client::new(upstream.address(), SideName::Protected);
        let naked = Naked::new(naked_client.clone(), args.pace());
        let protected = Protected::new(protected_client.clone(), args.pace(), args.seed)?;
        Ok(Self { naked_client, protected_client, naked: Arc::new(naked), protected: Arc::new(protected) })
    }
}

/// Plays the whole outage; Ctrl-C ends it early.
pub(crate) async fn run(args: &Args, view: &mut View) -> Result<Story, RunError> {
    let mut upstream = Upstream::start(&args.for_upstream()).await?;
    let parties = Parties::new(&upstream, args)?;
    let start = Instant::now();
    let mut story = Story::new(start, args.pace());
    let (stop, stopped) = watch::channel(false);
    upstream.begin().await?;
    let loads = put_load(args, &parties, &story, start, &stopped);
    let outcome = follow(&mut upstream, &parties, &mut story, view, start).await;
    if outcome.is_err() || story.interrupted {
        stop.send_replace(true);
    }
    for load in loads {
        load.await?;
    }
    story.look(&parties);
    outcome?;
    view.finish(&story)?;
    upstream.stop().await?;
    Ok(story)
}

fn put_load(
    args: &Args,
    parties: &Parties,
    story: &Story,
    start: Instant,
    stopped: &watch::Receiver<bool>,
) -> [JoinHandle<()>; 2] {
    let load = Load {
        rate: args.rate,
        outstanding: args.outstanding().into(),
        lasts: args.pace().total(),
        grace: args.pace().proof_of_service(),
        seed: args.seed,
    };
    let [naked, protected] = story.sides.each_ref().map(|side| Arc::clone(&side.record));
    [
        tokio::spawn(load.drive(Arc::clone(&parties.naked), naked, start, stopped.clone())),
        tokio::spawn(load.drive(Arc::clone(&parties.protected), protected, start, stopped.clone())),
    ]
}

async fn follow(
    upstream: &mut Upstream,
    parties: &Parties,
    story: &mut Story,
    view: &mut View,
    start: Instant,
) -> Result<(), RunError> {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut frames = (0..LOOKS_PER_FRAME).cycle();
    let interrupt = &mut core::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            news = upstream.news() => {
                story.elapsed = start.elapsed();
                let news = news?;
                story.hear(news);
                if news == News::Done {
                    story.look(parties);
                    return Ok(());
                }
            }
            _ = looks.tick() => {
                story.elapsed = start.elapsed();
                story.look(parties);
                if frames.next() == Some(0) {
                    view.draw(story)?;
                }
            }
            _ = &mut *interrupt => {
                story.elapsed = start.elapsed();
                story.interrupted = true;
                return Ok(());
            }
        }
    }
}
