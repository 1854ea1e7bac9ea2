//! What the upstream's process tells its parent, a line each.

use core::fmt;
use core::net::SocketAddr;
use core::str::{FromStr, SplitWhitespace};

use crate::side::SideName;

/// One line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum News {
    /// It can be reached at this address, and waits for the script to begin.
    Listening(SocketAddr),
    /// The script's phase of this index begins.
    Phase(usize),
    /// What it saw from a side during a phase, so far. Replaces what it said before.
    Seen {
        /// The phase's index.
        phase: usize,
        /// Who came.
        side: SideName,
        /// How often.
        seen: Seen,
    },
    /// The script is over.
    Done,
}

/// How often a side came.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen {
    /// Requests read.
    pub(crate) requests: u64,
    /// Connections on which at least one request was read.
    pub(crate) connections: u64,
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(address) => write!(f, "listening {address}"),
            Self::Phase(index) => write!(f, "phase {index}"),
            Self::Seen { phase, side, seen } => {
                let side = side.label();
                write!(f, "seen {phase} {side} {} {}", seen.requests, seen.connections)
            }
            Self::Done => f.write_str("done"),
        }
    }
}

/// A line that isn't news.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the upstream said something strange: {0:?}")]
pub(crate) struct Gibberish(String);

impl FromStr for News {
    type Err = Gibberish;

    fn from_str(line: &str) -> Result<Self, Gibberish> {
        let mut words = line.split_whitespace();
        parse(&mut words).filter(|_| words.next().is_none()).ok_or_else(|| Gibberish(line.to_owned()))
    }
}

fn parse(words: &mut SplitWhitespace<'_>) -> Option<News> {
    Some(match words.next()? {
        "listening" => News::Listening(next(words)?),
        "phase" => News::Phase(next(words)?),
        "seen" => News::Seen {
            phase: next(words)?,
            side: SideName::named(words.next()?)?,
            seen: Seen { requests: next(words)?, connections: next(words)? },
        },
        "done" => News::Done,
        _ => return None,
    })
}

fn next<T: FromStr>(words: &mut SplitWhitespace<'_>) -> Option<T> {
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_survive_the_pipe() {
        let seen = Seen { requests: 7, connections: 2 };
        let side = SideName::Protected;
        for news in [
            News::Listening(SocketAddr::from(([127, 0, 0, 1], 8080))),
            News::Phase(3),
            News::Seen { phase: 3, side, seen },
            News::Done,
        ] {
            assert_eq!(news.to_string().parse(), Ok(news));
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for line in ["", "phase", "phase x", "done twice", "seen 1 nobody 2 3"] {
            assert_eq!(line.parse::<News>(), Err(Gibberish(line.to_owned())));
        }
    }
}
