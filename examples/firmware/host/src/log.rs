//! What the image writes.

use std::io::{self, Read, Write};

use anstyle::{AnsiColor, Style};
use anyhow::bail;
use defmt_decoder::{DecodeError, Frame, Table};

/// Passes text on as it comes, until the output ends.
pub(crate) fn copy(mut output: impl Read) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    io::copy(&mut output, &mut stdout)?;
    stdout.flush()?;
    Ok(())
}

/// Prints defmt's frames as they come, until the output ends.
pub(crate) fn print(table: &Table, mut output: impl Read) -> anyhow::Result<()> {
    let mut decoder = table.new_stream_decoder();
    let mut buffer = [0; 1024];
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        decoder.received(&buffer[..count]);
        loop {
            match decoder.decode() {
                Ok(frame) => print_frame(&frame),
                Err(DecodeError::UnexpectedEof) => break,
                Err(DecodeError::Malformed) if table.encoding().can_recover() => eprintln!("a damaged log frame"),
                Err(error @ DecodeError::Malformed) => bail!("the image's log: {error}"),
            }
        }
    }
}

fn print_frame(frame: &Frame<'_>) {
    let time = frame.display_timestamp().map(|time| time.to_string()).unwrap_or_default();
    let level = frame.level().map_or("", |level| level.as_str());
    let style = match level {
        "error" => AnsiColor::Red.on_default().bold(),
        "warn" => AnsiColor::Yellow.on_default(),
        "info" => AnsiColor::Green.on_default(),
        _ => Style::new().dimmed(),
    };
    anstream::println!("{time:>10} {style}{level:<5}{style:#} {}", frame.display_message());
}
