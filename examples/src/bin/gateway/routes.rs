//! The routes: each an upstream within a pipeline, whose policies come from the file.

use core::error::Error as _;
use core::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use axum::body::Body;
use failsoft_tokio::http::{Buffered, HttpRequests, HttpStatus};
use failsoft_tokio::metrics::{Gauges, Metered, Metrics};
use failsoft_tokio::pipeline::{Bare, Stack};
use failsoft_tokio::settings::{Policies, PolicySet};
use failsoft_tokio::{Classify, Clock as _, Pipeline, PipelineLayer, PipelineService, Tokio, Verdict};
use http::Response;
use http::uri::Authority;
use hyper_util::client;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Layer as _;

use crate::file::{File, RouteSettings};

/// Who is told of what a policy does.
type Observers = Metrics<Arc<str>>;

/// Connections to an upstream that are kept for later.
const IDLE_CONNECTIONS: usize = 64;

type Forwarding = Client<HttpConnector, Buffered<Body>>;

/// Everything is counted; then come the policies of the file.
type RoutePipeline = Pipeline<Tokio, Stack<Stack<Bare, Metered<Arc<str>>>, PolicySet<Observers>>, Judge>;

/// Judges by the status; an error that is the client's own, whose request broke off, says nothing about the upstream.
pub(crate) struct Judge;

impl<B> Classify<Response<B>, client::legacy::Error> for Judge {
    fn classify(&self, result: Result<&Response<B>, &client::legacy::Error>) -> Verdict {
        match result {
            Err(error) if is_of_the_client(error) => Verdict::IGNORED,
            other => HttpStatus.classify(other),
        }
    }
}

fn is_of_the_client(error: &client::legacy::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Where a route leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Upstream(pub(crate) Authority);

pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    path: String,
    pub(crate) upstream: Upstream,
    pub(crate) policies: PolicySet<Observers>,
    pipeline: Arc<RoutePipeline>,
    pub(crate) service: PipelineService<Forwarding, Arc<RoutePipeline>, HttpRequests>,
}

impl Route {
    fn leads(&self, path: &str) -> bool {
        path.strip_prefix(&*self.path)
            .is_some_and(|rest| self.path.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    }
}

/// All there is: the routes of the file, and the policies that outlive a change of it.
pub(crate) struct Gateway {
    routes: ArcSwap<Vec<Arc<Route>>>,
    policies: Policies<Observers>,
    pub(crate) gauges: Gauges,
    client: Forwarding,
    reloading: Mutex<()>,
}

impl Gateway {
    /// With the routes of this file, whose text it returns too.
    pub(crate) fn open(path: &Path) -> Result<(Self, String)> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| name.clone())?;
        let file = File::parse(&text, &name)?;
        let gateway = Self {
            routes: ArcSwap::default(),
            policies: Policies::with_observers(&file.settings, |name| Metrics::new(name.into())),
            gauges: Gauges::new(),
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .build_http(),
            reloading: Mutex::new(()),
        };
        gateway.replace(&file)?;
        Ok((gateway, text))
    }

    /// Puts other routes and settings in place of those there are. What is under way ends as it began; what the policies have counted stays.
    pub(crate) fn reload(&self, file: &File) -> Result<String> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = self.policies.reload(&file.settings, &Tokio);
        self.replace(file)?;
        Ok(changes.to_string())
    }

    fn replace(&self, file: &File) -> Result<()> {
        let made: Result<Vec<_>> =
            file.routes.iter().map(|(name, said)| Ok(Arc::new(self.made(name, said)?))).collect();
        let mut routes = made?;
        // The longest path first: it is the one that means most.
        routes.sort_by_key(|route| core::cmp::Reverse(route.path.len()));
        for old in self.routes.load().iter() {
            self.gauges.remove(&old.name);
        }
        for route in &routes {
            self.gauges.register(route.name.to_string(), route.policies.clone());
        }
        self.routes.store(Arc::new(routes));
        Ok(())
    }

    fn made(&self, name: &str, said: &RouteSettings) -> Result<Route> {
        let policies = self.policies.get(said.policy(name))?;
        let name: Arc<str> = name.into();
        let pipeline = Pipeline::new(Tokio)
            .layer(Metered::calls(name.clone()).with_durations())
            .layer(policies.clone())
            .classify(Judge);
        let pipeline = Arc::new(pipeline);
        let service = PipelineLayer::with_requests(pipeline.clone(), HttpRequests).layer(self.client.clone());
        Ok(Route { name, path: said.path.clone(), upstream: said.upstream()?, policies, pipeline, service })
    }

    /// The route that a path belongs to.
    pub(crate) fn route(&self, path: &str) -> Option<Arc<Route>> {
        self.routes.load().iter().find(|route| route.leads(path)).cloned()
    }

    pub(crate) fn routes(&self) -> Arc<Vec<Arc<Route>>> {
        self.routes.load_full()
    }
}

/// Each route with its policies, as they are now.
impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for route in self.routes.load().iter() {
            writeln!(f, "  {} -> http://{} ({})", route.path, route.upstream.0, route.name)?;
            for line in route.pipeline.to_string().lines() {
                writeln!(f, "      {line}")?;
            }
        }
        Ok(())
    }
}

/// Each route in a line: what its policies have come to.
pub(crate) fn status(gateway: &Gateway) -> String {
    use core::fmt::Write as _;

    let mut text = String::new();
    for route in gateway.routes().iter() {
        let _ = write!(text, "{}:", route.name);
        if let Some(breaker) = route.policies.circuit_breaker() {
            let now = breaker.snapshot(&Tokio);
            let _ = write!(text, " breaker {:?}, {} failures", now.state, now.counts.failures);
            if let Some(until) = now.until {
                let _ = write!(text, ", another call in {:?}", until.saturating_duration_since(Tokio.now()));
            }
            let _ = write!(text, ";");
        }
        if let Some(bulkhead) = route.policies.bulkhead() {
            let now = bulkhead.snapshot();
            let _ = write!(text, " bulkhead {} of {} in use, {} waiting;", now.in_use, now.permits, now.queued);
        }
        if let Some(limiter) = route.policies.rate_limiter() {
            let _ = write!(text, " rate limit {} left", limiter.available(&Tokio));
        }
        text.push('\n');
    }
    text
}
