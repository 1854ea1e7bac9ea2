//! Where scenarios run: each run in a runtime of its own, so that nobody else's tasks and threads are in what it measures.

use core::future::Future;
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::Result;
use crate::guard::Settings;
use crate::outage::{Plan, Story, Subject, live};
use crate::server::Programs;

/// What all of them need.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    pub(crate) programs: Programs,
    /// Where servers have their files.
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
    /// Becomes true when everything has to end.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Lab {
    /// An empty folder of this name.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Runs it to its end, or until all has to end; then it is dropped, and its servers with it.
    fn run<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut stop = self.stop.clone();
        runtime.block_on(async {
            tokio::select! {
                result = future => result,
                // Nobody left who could say so is as good.
                _ = stop.wait_for(|stop| *stop) => Err("interrupted".into()),
            }
        })
    }

    /// A run with a server of its own, and what is to be read from the server afterwards.
    pub(crate) fn lives<S: Subject, T>(
        &self,
        name: &str,
        start: impl AsyncFnOnce(&Path) -> Result<S>,
        plan: Plan,
        settings: Option<Settings>,
        read: impl FnOnce(&S) -> Result<T>,
    ) -> Result<(Story, T)> {
        let folder = self.folder(name)?;
        self.run(async {
            let mut server = start(&folder).await?;
            let story = live(&mut server, plan, settings).await?;
            let read = read(&server)?;
            Ok((story, read))
        })
    }

    /// The same twice, at the same time: with policies, and without any, as a control.
    pub(crate) fn both<S: Subject, T: Send>(
        &self,
        name: &str,
        start: impl AsyncFn(&Path) -> Result<S> + Sync,
        plan: Plan,
        settings: Settings,
        read: impl Fn(&S) -> Result<T> + Sync,
    ) -> Result<[(Story, T); 2]> {
        // Its server gets up later: the crowd that waits for it then would be in the other one's way.
        let later = Plan { end: plan.end + Duration::from_millis(1_200), ..plan };
        beside(
            || self.lives(&format!("{name}-guarded"), &start, plan, Some(settings), &read),
            || self.lives(&format!("{name}-control"), &start, later, None, &read),
        )
    }
}

/// Both at the same time.
pub(crate) fn beside<T: Send>(
    guarded: impl FnOnce() -> Result<T>,
    control: impl FnOnce() -> Result<T> + Send,
) -> Result<[T; 2]> {
    thread::scope(|scope| {
        let control = scope.spawn(control);
        let guarded = guarded();
        let control = control.join().map_err(|_| "the control run panicked")?;
        Ok([guarded?, control.map_err(|why| format!("the control run: {why}"))?])
    })
}
