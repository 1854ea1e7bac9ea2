//! The gateway's file: its routes, beside the settings of the policies.

use core::convert::Infallible;
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use failsoft_tokio::settings::{Loader, Settings};
use http::uri::Authority;
use serde::Deserialize;

use crate::routes::{Gateway, Upstream};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_millis(250);

/// What a file says of one route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteSettings {
    /// Paths that begin with it belong to the route.
    pub(crate) path: String,
    /// `http://host:port`.
    upstream: String,
    /// The name of its policy: that of the route, unless said otherwise.
    policy: Option<String>,
}

impl RouteSettings {
    pub(crate) fn upstream(&self) -> Result<Upstream> {
        let authority = self.upstream.strip_prefix("http://").and_then(|rest| rest.parse::<Authority>().ok());
        // What is no port would be as if there were none.
        let authority = authority.filter(|it| {
            let (whole, host) = (it.as_str(), it.host());
            !host.is_empty() && (whole == host || it.port_u16().is_some_and(|port| whole == format!("{host}:{port}")))
        });
        authority
            .map(Upstream)
            .with_context(|| format!("`{}` is no upstream: http://127.0.0.1:9001 is one", self.upstream))
    }

    pub(crate) fn policy<'a>(&'a self, name: &'a str) -> &'a str {
        self.policy.as_deref().unwrap_or(name)
    }
}

/// The part that is the gateway's own.
#[derive(Deserialize)]
struct Routes {
    #[serde(default)]
    routes: BTreeMap<String, RouteSettings>,
}

/// A file, read and found to make sense in itself.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) routes: BTreeMap<String, RouteSettings>,
    pub(crate) settings: Settings,
}

impl File {
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self> {
        let settings =
            Loader::new().with_environment("GATEWAY", std::env::vars_os()).beside(["routes"]).toml(text, name)?;
        let Routes { routes } = toml::from_str(text).with_context(|| name.to_owned())?;
        ensure!(!routes.is_empty(), "{name}: there are no routes: a section [routes.NAME] is one");
        for (route, said) in &routes {
            if !said.path.starts_with('/') {
                bail!("{name}: routes.{route}.path: `{}` is no path: /{} is one", said.path, said.path);
            }
            said.upstream().with_context(|| format!("{name}: routes.{route}.upstream"))?;
            let policy = said.policy(route);
            if !settings.names().any(|known| known == policy) {
                let known: Vec<_> = settings.names().collect();
                bail!("{name}: routes.{route}.policy: there is no policy `{policy}`; there are: {}", known.join(", "));
            }
        }
        Ok(Self { routes, settings })
    }
}

/// Reads the file again whenever it has changed, and says what came of it. A wrong one changes nothing; `seen` is what it was last.
///
/// It goes by a text that has stayed the same for an interval, so that none is taken while it is being written.
pub(crate) async fn watch(path: PathBuf, gateway: Arc<Gateway>, mut seen: String) -> Infallible {
    let (name, mut before) = (path.display().to_string(), Ok(seen.clone()));
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = fs::read_to_string(&path).map_err(|error| error.to_string());
        let settled = now == before;
        before = now.clone();
        let text = now.unwrap_or_else(|error| format!("{UNREADABLE}{error}"));
        if !settled || text == seen {
            continue;
        }
        seen = text;
        match reload(&gateway, &seen, &name) {
            Ok(changes) => println!("gateway: {name} has changed: {changes}\n{gateway}"),
            Err(error) => eprintln!("gateway: all stays as it was: {error:#}"),
        }
    }
}

/// Stands before the reason, in place of a text that can't be read.
const UNREADABLE: &str = "\0";

fn reload(gateway: &Gateway, text: &str, name: &str) -> Result<String> {
    if let Some(reason) = text.strip_prefix(UNREADABLE) {
        bail!("{name}: {reason}");
    }
    gateway.reload(&File::parse(text, name)?)
}
