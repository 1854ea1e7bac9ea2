//! QEMU as a child process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;

/// The chips that images are built for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Chip {
    /// Cortex-M0: BBC micro:bit, without compare-and-swap.
    M0,
    /// Cortex-M3: Stellaris LM3S6965.
    M3,
    /// Cortex-M4 with floating point, in the same board.
    M4f,
    /// Cortex-M33, in the same board.
    M33,
    /// RISC-V, RV32IMC: without compare-and-swap.
    Rv32,
}

impl Chip {
    fn emulator(self) -> &'static str {
        match self {
            Self::Rv32 => "qemu-system-riscv32",
            _ => "qemu-system-arm",
        }
    }

    fn machine(self) -> &'static str {
        match self {
            Self::M0 => "microbit",
            Self::M3 | Self::M4f | Self::M33 => "lm3s6965evb",
            Self::Rv32 => "virt",
        }
    }

    /// The core in its place, where the machine has another one by itself.
    fn core(self) -> Option<&'static str> {
        match self {
            Self::M0 | Self::M3 | Self::Rv32 => None,
            Self::M4f => Some("cortex-m4"),
            Self::M33 => Some("cortex-m33"),
        }
    }
}

/// What the image is joined to.
pub(crate) enum Link<'a> {
    /// Nothing. Time is virtual, and an instruction takes 2^`shift` ns.
    None { shift: u8 },
    /// Its UART to a socket somebody listens on.
    Socket(&'a Path),
    /// Its Ethernet to a network in which this host is 10.0.2.2; the server's port is the image's argument.
    Network { port: u16 },
}

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// By the image, with its exit code.
    Exited(u8),
    /// By force.
    LimitReached,
}

/// A running emulator. It ends with its owner.
pub(crate) struct Emulator(Child);

impl Emulator {
    pub(crate) fn start(
        chip: Chip,
        image: &Path,
        seed: u32,
        arguments: &[String],
        link: Link<'_>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(chip.emulator());
        command.args(["-machine", chip.machine(), "-display", "none", "-monitor", "none"]);
        if let Some(core) = chip.core() {
            command.args(["-cpu", core]);
        }
        if matches!(chip, Chip::Rv32) {
            // Or it would start what comes with the emulator.
            command.args(["-bios", "none"]);
        }
        // The first argument is the program's name.
        command.arg("-semihosting-config");
        let mut semihosting = format!("enable=on,target=native,arg=image,arg=seed={seed}");
        let port = if let Link::Network { port } = link { Some(format!("port={port}")) } else { None };
        for argument in arguments.iter().chain(&port) {
            semihosting.push_str(",arg=");
            semihosting.push_str(argument);
        }
        command.arg(semihosting);
        match link {
            // `sleep=off` jumps over the time in which the image waits.
            Link::None { shift } => {
                command.args(["-serial", "null", "-icount"]).arg(format!("shift={shift},sleep=off"))
            }
            Link::Socket(path) => command.arg("-serial").arg(format!("unix:{}", path.display())),
            Link::Network { .. } => command.args(["-serial", "null", "-nic", "user,model=stellaris,ipv6=off"]),
        };
        command.arg("-kernel").arg(image);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", chip.emulator()))?;
        if let Some(complaints) = child.stderr.take() {
            thread::spawn(move || pass_on(BufReader::new(complaints)));
        }
        Ok(Self(child))
    }

    /// What the image writes: defmt's frames, or text.
    ///
    /// # Panics
    ///
    /// When called twice.
    pub(crate) fn take_output(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("taken once")
    }

    /// Waits until the image ends, or ends it after `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> anyhow::Result<Verdict> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                let code = status.code().with_context(|| format!("the emulator ended by {status}"))?;
                return Ok(Verdict::Exited(u8::try_from(code)?));
            }
            if Instant::now() >= deadline {
                self.0.kill()?;
                self.0.wait()?;
                return Ok(Verdict::LimitReached);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What QEMU says of boards whose timers don't run yet, before the image's first instruction after power-on or a reset.
const NO_TIMERS: [&str; 2] = ["Timer with period zero, disabling", "icount sleep disabled and no active timers"];

fn pass_on(complaints: impl BufRead) {
    for line in complaints.lines().map_while(Result::ok) {
        if !NO_TIMERS.iter().any(|expected| line.ends_with(expected)) {
            eprintln!("{line}");
        }
    }
}
