//! What is counted on an emulated Cortex-M0, and weighed in its images: exact, the same in each run.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::{NOT_MEASURED, Row};

/// The folder of the scripts that build and run the images.
const FIRMWARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/firmware");

/// Where no figure could be had, the problem.
type Measured<T> = Result<T, String>;

/// Named figures, as the scripts print them.
struct Figures(Measured<BTreeMap<String, u64>>);

impl Figures {
    /// Those that a script of the firmware's folder prints, a name and a number a line.
    fn of(script: &str, arguments: &[&str]) -> Self {
        Self(read(script, arguments))
    }

    fn get(&self, name: &str) -> Measured<u64> {
        let figures = self.0.as_ref().map_err(Clone::clone)?;
        figures.get(name).copied().ok_or_else(|| format!("no figure `{name}`"))
    }

    /// What an operation takes: instructions, and bytes of stack.
    fn operation(&self, name: &str) -> Measured<(u64, u64)> {
        Ok((self.get(&format!("instructions.{name}"))?, self.get(&format!("stack.{name}"))?))
    }
}

/// What a script of the firmware's writes.
fn output(script: &str, arguments: &[&str]) -> Measured<String> {
    let output = Command::new(format!("{FIRMWARE}/{script}"))
        .args(arguments)
        .stdin(Stdio::null())
        // What is missing, or doesn't build, is said there.
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{script} does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("examples/firmware/{script} failed, {}; its text is above", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A name and a figure a line.
fn read(script: &str, arguments: &[&str]) -> Measured<BTreeMap<String, u64>> {
    output(script, arguments)?
        .lines()
        .map(|line| {
            let (name, figure) = line.split_once(' ').ok_or_else(|| format!("{script}: no figure in `{line}`"))?;
            let figure = figure.parse().map_err(|_| format!("{script}: no number in `{line}`"))?;
            Ok((name.to_owned(), figure))
        })
        .collect()
}

/// What a row says, once measured.
struct Finding {
    figure: String,
    reached: Option<bool>,
    remark: String,
}

/// The chips that there are.
pub(crate) fn all() -> Measured<Vec<String>> {
    Ok(output("run", &["--list"])?.lines().map(str::to_owned).collect())
}

/// Every figure that a chip's image of costs prints: instructions, stack and memory.
pub(crate) fn costs(chip: &str) -> Measured<BTreeMap<String, u64>> {
    read("run", &["--image", "costs", "--chip", chip])
}

/// A row that says what it would have measured where it could not.
fn row(what: &'static str, reach: &'static str, finding: Measured<Finding>) -> Row {
    match finding {
        Ok(Finding { figure, reached, remark }) => Row { what, figure, reach, reached, elsewhere: remark },
        Err(problem) => {
            let reached = (!reach.is_empty()).then_some(false);
            Row { what, figure: String::from(NOT_MEASURED), reach, reached, elsewhere: problem }
        }
    }
}

pub(crate) fn rows() -> Vec<Row> {
    let costs = Figures(costs("m0"));
    let flash = Figures::of("flash", &["--chip", "m0"]);
    let call = "≤ 100 instructions, ≤ 64 B stack";
    vec![
        row("Cortex-M0, breaker, consecutive: permit + record", call, breaker(&costs, "consecutive")),
        row("Cortex-M0, breaker, rate: permit + record", call, breaker(&costs, "rate")),
        row("Cortex-M0, breaker, meter: permit + record", call, breaker(&costs, "meter")),
        row("Cortex-M0, breaker in RAM", "≤ 16 B of state", memory(&costs)),
        row(
            "Cortex-M0, breaker in flash, consecutive",
            "≤ 350 B",
            weight(&flash, "consecutive", 350).and_then(|finding| beside(&flash, finding)),
        ),
        row(
            "Cortex-M0, breaker in flash, everything",
            "≤ 1 KiB",
            weight(&flash, "everything", 1 << 10).and_then(|finding| conditions(&flash, finding)),
        ),
        row(
            "Cortex-M0, all five patterns composed",
            "≤ 8 KiB flash, 0 panics linked",
            weight(&flash, "all_five_no_queue", 8 << 10).and_then(|finding| with_queue(&flash, finding)),
        ),
        row("Cortex-M0, longest critical section", "", longest_section(&costs)),
        row("Cortex-M0, bulkhead: acquire + release", "", other(&costs, "bulkhead.critical-section.acquire-release")),
        row("Cortex-M0, retry: next delay with jitter", "", other(&costs, "retry.none.decide-again")),
        row("Cortex-M0, pipeline of four, ready future", "", other(&costs, "pipeline.critical-section.success")),
    ]
}

/// A call that succeeds and one that fails, while the breaker is closed and stays so.
fn breaker(costs: &Figures, trip: &str) -> Measured<Finding> {
    let shared = |operation| costs.operation(&format!("{trip}.critical-section.{operation}"));
    let alone = |operation| costs.operation(&format!("{trip}.local.{operation}"));
    let (success, failure) = (shared("closed-success")?, shared("closed-failure")?);
    let ((rejected, _), (probe, _)) = (shared("open-rejected")?, shared("first-probe")?);
    let condition = costs.operation(&format!("{trip}.none.condition-alone"))?;
    Ok(Finding {
        figure: format!("success {} ({} B), failure {} ({} B)", success.0, success.1, failure.0, failure.1),
        reached: Some(success.0.max(failure.0) <= 100 && success.1.max(failure.1) <= 64),
        remark: format!(
            "of the failure, the condition alone {} ({} B); rejected {rejected}, first probe {probe}; single owner: success {}, failure {}",
            condition.0,
            condition.1,
            alone("closed-success")?.0,
            alone("closed-failure")?.0
        ),
    })
}

fn memory(costs: &Figures) -> Measured<Finding> {
    let of = |trip| {
        let name = |kind| format!("{kind}.{trip}.critical-section");
        Ok::<_, String>((costs.get(&name("state"))?, costs.get(&name("ram"))?))
    };
    let [consecutive, rate, meter] = [of("consecutive")?, of("rate")?, of("meter")?];
    Ok(Finding {
        figure: format!("{} B of state, {} B with its settings", consecutive.0, consecutive.1),
        reached: Some(consecutive.0.max(rate.0).max(meter.0) <= 16),
        remark: format!("rate {} and {} B, meter {} and {} B", rate.0, rate.1, meter.0, meter.1),
    })
}

/// What a policy weighs in flash. A panic linked with it is a failure in any case.
fn weight(flash: &Figures, policy: &str, most: u64) -> Measured<Finding> {
    let of = |kind| flash.get(&format!("{kind}.{policy}"));
    let (bytes, helpers, panics) = (of("flash")?, of("helpers")?, of("panics")?);
    Ok(Finding {
        figure: format!("{bytes} B, {panics} panics linked"),
        reached: Some(bytes <= most && panics == 0),
        remark: format!("{helpers} B of it are the compiler's own helpers"),
    })
}

/// For how long an interrupt may have to wait for a policy, and for which.
fn longest_section(costs: &Figures) -> Measured<Finding> {
    let figures = costs.0.as_ref().map_err(Clone::clone)?;
    let sections = figures.iter().filter_map(|(name, figure)| Some((name.strip_prefix("section.")?, figure)));
    let (name, figure) = sections.max_by_key(|(_, figure)| **figure).ok_or("no figure of a critical section")?;
    let usual = costs.get("section.consecutive.critical-section.closed-failure")?;
    Ok(Finding {
        figure: format!("{figure} instructions"),
        reached: None,
        remark: format!("{name}; of a failure that a breaker counts {usual}"),
    })
}

/// With what its conditions take by themselves, and what is left of the limit for a breaker around them.
fn conditions(flash: &Figures, finding: Finding) -> Measured<Finding> {
    let (conditions, by_hand) = (flash.get("flash.conditions")?, flash.get("flash.by_hand")?);
    let remark = format!(
        "{}; its conditions and growing periods alone {conditions} B, and the least breaker by hand {by_hand} B",
        finding.remark
    );
    Ok(Finding { remark, ..finding })
}

/// Beside the same with callers that wait for each other: the queue is the adapter's, and a part of how a task is woken.
fn with_queue(flash: &Figures, finding: Finding) -> Measured<Finding> {
    let queue = flash.get("flash.all_five")?;
    Ok(Finding { remark: format!("{}; with the adapter's wait queue {queue} B", finding.remark), ..finding })
}

/// Beside a breaker of the same rules that is written for its image alone.
fn beside(flash: &Figures, finding: Finding) -> Measured<Finding> {
    let by_hand = flash.get("flash.by_hand")?;
    Ok(Finding { remark: format!("written by hand for one image, with its rules and no more: {by_hand} B"), ..finding })
}

fn other(costs: &Figures, operation: &str) -> Measured<Finding> {
    let (instructions, stack) = costs.operation(operation)?;
    Ok(Finding {
        figure: format!("{instructions} instructions, {stack} B stack"),
        reached: None,
        remark: String::new(),
    })
}
