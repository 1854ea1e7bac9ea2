//! A file that is read again when it has changed.

use core::convert::Infallible;
use core::time::Duration;
use std::path::Path;

use failsoft_core::Observer;
use failsoft_core::circuit_breaker::Transition;
use failsoft_core::retry::Retrying;

use super::{Changes, Loader, Policies, SettingsError};
use crate::Tokio;

impl<O: Clone + Observer<Retrying> + Observer<Transition>> Policies<O> {
    /// Reads a file now and after each interval, and where it has changed [reloads](Self::reload) by it; for a task of its own, since it
    /// never ends. `told` learns what came of each new content, the first one included: of a file that is wrong, or gone, once, and
    /// then all stays as it is.
    ///
    /// A content counts when it is the same at two readings, so that none is taken while it is being written; to replace the file by renaming
    /// another one is better still. It goes by the content, and by no time stamp: what has been replaced within the same second is found too. The file is
    /// read in the task, which takes microseconds; where the file is on a network drive, give it a thread of its own.
    ///
    /// # Cancel safety
    /// Dropping the future ends the watch, between two readings: nothing is half reloaded.
    pub async fn watch(
        &self,
        loader: &Loader,
        path: impl AsRef<Path>,
        interval: Duration,
        mut told: impl FnMut(Result<Changes, SettingsError>),
    ) -> Infallible {
        let path = path.as_ref();
        let (mut seen, mut before) = (None, None);
        loop {
            let content = super::content(path);
            let settled = seen.is_none() || before.as_ref() == Some(&content);
            if settled && seen.as_ref() != Some(&content) {
                let settings = loader.read_content(path, &content);
                seen = Some(content.clone());
                told(settings.map(|settings| self.reload(&settings, &Tokio)));
            }
            before = Some(content);
            tokio::time::sleep(interval).await;
        }
    }
}
