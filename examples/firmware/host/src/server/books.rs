//! What the server has taken, and what the device believes of it.

use std::fmt;
use std::time::Duration;

use sensor_protocol::uplink::{Books, Set};

use super::phases::{RECOVERY, Stay};

/// The server's books, and the device's once it has closed.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    arrived: Set,
    /// Readings that had arrived before: their acknowledgement got lost, or was never sent.
    again: u32,
    acknowledged: Set,
    /// Those of them of which the device has shown that it knows.
    confirmed: Set,
    taken: u32,
    lowest_level: u8,
    pub(crate) garbled: u32,
    /// How long it took the device to get back to full service.
    pub(crate) recovered: Option<Duration>,
    device: Option<Books>,
}

impl Ledger {
    pub(crate) fn take(&mut self, first: u32, count: u8) {
        for reading in readings(first, count) {
            if !self.arrived.insert(reading) {
                self.again += 1;
            }
            self.taken = self.taken.max(reading + 1);
        }
    }

    pub(crate) fn acknowledge(&mut self, first: u32, count: u8) {
        readings(first, count).for_each(|reading| _ = self.acknowledged.insert(reading));
    }

    pub(crate) fn confirm(&mut self, first: u32, count: u8) {
        readings(first, count).for_each(|reading| _ = self.confirmed.insert(reading));
    }

    pub(crate) fn note_level(&mut self, level: u8) {
        self.lowest_level = self.lowest_level.max(level);
    }

    /// Takes the device's books, and returns the server's.
    pub(crate) fn close(&mut self, device: Books) -> Books {
        self.device = Some(device);
        Books { taken: self.taken, acknowledged: self.acknowledged }
    }

    /// What is wrong with the two sides' books.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut check = |right: bool, complaint: &str| {
            if !right {
                complaints.push(complaint.to_owned());
            }
        };
        match &self.device {
            None => check(false, "the device never closed"),
            Some(device) => {
                let believed = &device.acknowledged;
                check(believed.is_subset(&self.acknowledged), "the device believes what was never acknowledged");
                check(self.confirmed.is_subset(believed), "the device has lost what was acknowledged to it");
                check(device.taken >= self.taken, "more readings arrived than the device has taken");
            }
        }
        check(self.acknowledged.is_subset(&self.arrived), "what never arrived was acknowledged");
        check(self.garbled == 0, "there were requests that are none");
        check(self.again > 0, "no reading came again: no acknowledgement was lost");
        check(self.lowest_level > 0, "the device was at full service all the time");
        check(
            self.recovered.is_some_and(|span| span <= RECOVERY),
            "the device did not get back to full service in time",
        );
        complaints
    }
}

fn readings(first: u32, count: u8) -> impl Iterator<Item = u32> {
    (0..u32::from(count)).map(move |place| first.saturating_add(place))
}

/// What the server has seen, and whether it was right.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) ledger: Ledger,
    pub(crate) stays: Vec<Stay>,
}

impl Summary {
    /// What is wrong with what it has seen.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = self.ledger.complaints();
        for stay in &self.stays {
            if let Some(most) = stay.most().filter(|most| stay.met > *most) {
                let Stay { phase, met, .. } = stay;
                complaints.push(format!("while it {}, it was called {met} times, and not {most} at most", phase.name));
            }
        }
        complaints
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stay in &self.stays {
            let Stay { phase, lasted, met } = stay;
            write!(f, "server: {} for {:.1} s, {met} calls", phase.name, lasted.as_secs_f64())?;
            match stay.most() {
                Some(most) => writeln!(f, " of {most} at most")?,
                None => writeln!(f)?,
            }
        }
        let Ledger { arrived, again, acknowledged, confirmed, recovered, device, .. } = &self.ledger;
        write!(
            f,
            "server: {} readings arrived, {again} of them again; {} acknowledged, ",
            arrived.len(),
            acknowledged.len()
        )?;
        write!(f, "{} of them for certain", confirmed.len())?;
        if let Some(Books { taken, acknowledged }) = device {
            write!(f, "; of {taken}, the device believes {} to be", acknowledged.len())?;
        }
        if let Some(span) = recovered {
            write!(f, "; at full service {:.1} s after the server was back", span.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of six readings the last one was dropped. The third was acknowledged, and the device doesn't know; it came
    /// again.
    fn right() -> (Ledger, Books) {
        let mut ledger = Ledger { lowest_level: 2, recovered: Some(RECOVERY), ..Ledger::default() };
        ledger.take(0, 3);
        ledger.take(2, 3);
        ledger.acknowledge(0, 5);
        ledger.confirm(0, 2);
        let mut acknowledged = Set::new();
        for reading in [0, 1, 3, 4] {
            acknowledged.insert(reading);
        }
        (ledger, Books { taken: 6, acknowledged })
    }

    /// What there is to complain of after a change to what is right.
    fn complaints(change: impl FnOnce(&mut Ledger, &mut Books)) -> Vec<String> {
        let (mut ledger, mut device) = right();
        change(&mut ledger, &mut device);
        let _ = ledger.close(device);
        ledger.complaints()
    }

    #[test]
    fn a_lost_acknowledgement_is_no_reason_to_complain() {
        assert_eq!(complaints(|_, _| {}), [""; 0]);
    }

    #[test]
    fn no_wrong_belief_passes() {
        let believes_too_much = complaints(|_, device| _ = device.acknowledged.insert(5));
        assert_eq!(believes_too_much, ["the device believes what was never acknowledged"]);
        let has_lost_one = complaints(|ledger, _| ledger.confirm(2, 1));
        assert_eq!(has_lost_one, ["the device has lost what was acknowledged to it"]);
        let invents = complaints(|ledger, device| (ledger.again, device.taken) = (1, 4));
        assert_eq!(invents, ["more readings arrived than the device has taken"]);
    }

    #[test]
    fn a_run_that_shows_nothing_doesn_t_pass() {
        assert_eq!(complaints(|ledger, _| ledger.again = 0).len(), 1);
        assert_eq!(complaints(|ledger, _| ledger.lowest_level = 0).len(), 1);
        assert_eq!(complaints(|ledger, _| ledger.recovered = None).len(), 1);
        assert_eq!(right().0.complaints(), ["the device never closed"]);
    }
}
