//! The naked side: the client with its timeout, as most programs call their upstreams.

use core::time::Duration;

use crate::client::{CallError, Client};
use crate::script::Pace;
use crate::side::{Reason, Served, Side};

/// What many HTTP clients are configured with, or fall back to.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One attempt and one timeout.
#[derive(Debug)]
pub(crate) struct Naked {
    client: Client,
    timeout: Duration,
}

impl Naked {
    /// A plain caller. Its timeout keeps the script's pace.
    pub(crate) fn new(client: Client, pace: Pace) -> Self {
        Self { client, timeout: pace.of(TIMEOUT) }
    }
}

impl Side for Naked {
    async fn ask(&self, item: u32) -> Served {
        let answer = tokio::time::timeout(self.timeout, self.client.get(item)).await;
        match answer.unwrap_or(Err(CallError::TimedOut)) {
            Ok(_) => Served::Fresh,
            Err(error) => Served::Failed(Reason::from(&error)),
        }
    }
}
